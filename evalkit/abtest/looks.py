"""The ledger of looks: every time somebody reads the effect, a line; the report prints it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from evalkit.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One reading.

    Attributes:
        at: UTC time, ISO 8601; the present when not given.
        look: Number of the planned look; None for one that was not planned.
        information: Fraction of the planned information at hand.
        effect_shown: False when the plan withheld the effect.
        verdict: As shown.
        run: Name of the run that looked; "" by hand.
        control_model: As the plan names it, so that the result is known even when the plan is not; "" in old lines.
        treatment_model: Likewise.
        simulated: Whether its users were; None in old lines.
    """

    experiment: str
    plan_sha256: str
    look: int | None
    information: float
    n_control: int
    n_treatment: int
    effect_shown: bool
    verdict: str
    run: str = ""
    at: str = ""
    control_model: str = ""
    treatment_model: str = ""
    simulated: bool | None = None


def record_look(path: str | Path, look: Look) -> Look:
    """Appends a look and brings it to the disk before anything is shown."""
    path = Path(path)
    look = look if look.at else replace(look, at=datetime.now(UTC).isoformat(timespec="seconds"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        torn = file.tell() and not _ends_in_newline(path)
        file.write(b"\n" * bool(torn) + json.dumps(asdict(look), allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return look


def read_looks(path: str | Path) -> tuple[Look, ...]:
    """The looks so far, oldest first; none when nobody has looked.

    Raises:
        DataError: A line is not a look.
    """
    path = Path(path)
    if not path.exists():
        return ()
    lines = path.read_bytes().split(b"\n")
    return tuple(_look(line, path, number) for number, line in enumerate(lines, 1) if line.strip())


def _look(line: bytes, path: Path, number: int) -> Look:
    try:
        return Look(**json.loads(line))
    except (ValueError, TypeError) as why:
        raise DataError(
            f"{path}:{number}: not a look ({why}); remove this line if a crash tore it"
        ) from why


def _ends_in_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
