"""A study's two folders: data/<study> for what must not be lost, reports/<study> for what can be made again."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from evalkit.errors import DataError, DesignError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
BY_HAND = "by-hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Where one study lives.

    Attributes:
        name: Lower-case name; `data/<name>` is its folder.
        root: The project's folder, the one that holds `data` and `notebooks`.
    """

    name: str
    root: Path

    @classmethod
    def open(cls, name: str, *, root: Path | None = None) -> Study:
        """Finds a study by name, from the project's folder or any folder inside it.

        Raises:
            DesignError: The name is not lower-case letters, digits, "-" and "_".
            DataError: There is no such folder; the message lists those that exist.
        """
        name = checked_name(name, what="study")
        root = root or project_root()
        if not (root / "data" / name).is_dir():
            known = sorted(path.name for path in (root / "data").glob("*") if path.is_dir())
            raise DataError(
                f"{root / 'data' / name}: no such study; data/ holds {', '.join(known) or 'none'}"
            )
        return cls(name=name, root=root)

    @property
    def folder(self) -> Path:
        """`data/<study>`."""
        return self.root / "data" / self.name

    @property
    def reports(self) -> Path:
        """`reports/<study>`."""
        return self.root / "reports" / self.name

    def path(self, relative: str) -> Path:
        """A file the study names, relative to its folder, and never outside it.

        Raises:
            DataError: The path leaves the study's folder.
        """
        path = (self.folder / relative).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise DataError(
                f"{relative!r} leaves {self.folder}; name a file inside the study's folder"
            )
        return path

    def run_folder(self, run: str = "") -> Path:
        """The folder of one run; "" is the folder for work by hand. Created when absent."""
        folder = self.reports / ((run and checked_run(run)) or BY_HAND)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def new_run_name(now: datetime | None = None) -> str:
    """`<UTC time>-<8 hex>`, sortable and unique."""
    return f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def checked_name(name: str, *, what: str) -> str:
    """Returns `name` when it is safe as a folder or file name.

    Raises:
        DesignError: It is not.
    """
    if not _NAME.match(name):
        raise DesignError(
            f"{what} {name!r}: use lower-case letters, digits, '-' and '_', at most 64, starting with a letter or digit"
        )
    return name


def checked_run(run: str) -> str:
    """Returns `run` when it is safe as a folder name.

    Raises:
        DesignError: It is not.
    """
    if run != BY_HAND and not re.match(r"\d{8}T\d{6}Z-[0-9a-f]{8}\Z", run):
        raise DesignError(f"run {run!r}: expected a name such as 20261124T120000Z-1a2b3c4d")
    return run


def project_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` that holds both `data` and `notebooks`.

    Raises:
        DataError: There is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "data").is_dir() and (folder / "notebooks").is_dir():
            return folder
    raise DataError(
        f"{here}: no folder here or above holds data/ and notebooks/; start from the project's folder"
    )
