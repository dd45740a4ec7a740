"""What somebody keeps on examples while stepping through them: a note, tags, a mark; the last line on an example counts."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit import wording
from evalkit.files import append_line, lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept on one example."""

    note: str = ""
    tags: tuple[str, ...] = ()
    marked: bool = False


def read_kept(path: Path | None) -> dict[str, Kept]:
    """What is kept on each example; what is no note is passed over with a warning."""
    found: dict[str, Kept] = {}
    if path is None or not path.exists():
        return found
    for number, _, line in lines(path):
        try:
            row: Any = json.loads(line)
            tags = tuple(str(one) for one in row.get("tags") or ())
            kept = Kept(note=str(row["note"]), tags=tags, marked=bool(row.get("marked")))
            found[row["example_id"]] = kept
        except (ValueError, TypeError, KeyError, AttributeError) as why:  # the others must show
            warnings.warn(f"{path}:{number}: not a note ({why}); passed over", stacklevel=2)
    return found


def read_notes(path: Path | None) -> dict[str, str]:
    """The latest note of each example."""
    return {example_id: one.note for example_id, one in read_kept(path).items()}


def write_note(
    path: Path, example_id: str, note: str, *, marked: bool = False, tags: tuple[str, ...] = ()
) -> None:
    """Appends what is kept on one example as a JSON line.

    Raises:
        DataError: It cannot be written.
    """
    row = {
        "example_id": example_id,
        "note": wording.cleaned(note)[0],
        **({"tags": [wording.cleaned(one)[0] for one in tags]} if tags else {}),
        **({"marked": True} if marked else {}),
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    append_line(path, json.dumps(row).encode())
