"""A study's two folders: data/<study> for what must not be lost, reports/<study> for what can be made again."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from evalkit.errors import DataError, DesignError
from evalkit.settings import (
    TYPES,
    Settings,
    Value,
    checked,
    declared_parameters,
    read_flat,
    read_pinned,
    settings_of,
    whole_question,
)

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
BY_HAND = "by-hand"
FILE = "study.yaml"
# In a run's folder: what the study file and the command said when it began.
PINNED = "settings.json"


@dataclass(frozen=True, kw_only=True)
class Study:
    """Where one study lives, and what it says of itself.

    Attributes:
        name: Lower-case name; `data/<name>` is its folder.
        root: The project's folder, the one that holds `data` and `notebooks`.
        run: Name of the run this is opened for; "" is work by hand.
        overrides: Settings that replace the study's own, for this object only.
    """

    name: str
    root: Path
    run: str = ""
    overrides: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def open(
        cls, name: str, *, root: Path | None = None, run: str = "", **overrides: Value | None
    ) -> Study:
        """Finds a study by name, from the project's folder or any folder inside it.

        Args:
            name: Its name.
            root: The project's folder; found from here by default.
            run: A run's name: settings are then those the run began with. "" reads the study's file.
            overrides: Settings for this object only; None or "" leaves one as the study says.

        Raises:
            DesignError: The name is not lower-case letters, digits, "-" and "_"; or an override is
                no setting, or of another type.
            DataError: There is no such folder; the message lists those that exist.
        """
        name = checked_name(name, what="study")
        root = root or project_root()
        if not (root / "data" / name).is_dir():
            known = sorted(path.name for path in (root / "data").glob("*") if path.is_dir())
            raise DataError(
                f"{root / 'data' / name}: no such study; data/ holds {', '.join(known) or 'none'}"
            )
        left = (type(None), str)  # no comparison: a table has no one answer to it
        given = {k: one for k, one in overrides.items() if not isinstance(one, left) or one}
        return cls(name=name, root=root, run=run, overrides=checked(given))

    @cached_property
    def given(self) -> dict[str, Value]:
        """What the study's file (or the run that began with it) and the overrides say, by name.

        Raises:
            DataError: The file is missing, not flat, holds a name that neither a setting nor a
                notebook has, a value of another type, or the name of another study.
        """
        pinned = self.reports / self.run / PINNED
        if self.run and pinned.is_file():
            return {**read_pinned(pinned), **self.overrides}
        path = self.folder / FILE
        values = read_flat(path)
        try:
            values = checked(values, types=self._known(values), where=str(path))
        except DesignError as why:
            raise DataError(str(why)) from None
        if values.get("study", self.name) != self.name:
            raise DataError(
                f"{path}: says study: {values['study']}, and stands in {self.name}; a study's name "
                f"is its folder's: write study: {self.name}"
            )
        return {**values, **self.overrides}

    @cached_property
    def settings(self) -> Settings:
        """The settings, with defaults where the study says nothing; raises as `given` does, and for half a question."""
        return whole_question(settings_of(self.given))

    def _known(self, values: Mapping[str, Value]) -> dict[str, type]:
        """Types by name: the settings', and where those don't do, what the notebooks declare."""
        own = {"study": str, "run": str, **TYPES}
        if values.keys() <= own.keys():
            return own
        known = dict[str, type]()
        for book in sorted((self.root / "notebooks").glob("[0-9]*.ipynb")):
            known |= declared_parameters(book)
        return known | own

    @property
    def folder(self) -> Path:
        """`data/<study>`."""
        return self.root / "data" / self.name

    @property
    def reports(self) -> Path:
        """`reports/<study>`."""
        return self.root / "reports" / self.name

    def runs(self) -> dict[str, Path]:
        """The folders of its runs by name."""
        return {path.name: path for path in self.reports.glob("*T*Z-*") if path.is_dir()}

    def path(self, relative: str) -> Path:
        """A file the study names, relative to its folder, and never outside it.

        Raises:
            DataError: The path leaves the study's folder.
        """
        return inside(self.folder, relative)

    def named_file(self, relative: str) -> Path | None:
        """A file the study names, None for ""; whoever reads it says when it is not there."""
        return self.path(relative) if relative else None

    def optional(self, relative: str) -> Path | None:
        """A file the study may have; None when it is not named or not there."""
        path = self.named_file(relative)
        return path if path and path.exists() else None

    def run_folder(self, run: str = "") -> Path:
        """The folder of one run, this study's own by default. Created when absent."""
        folder = self.reports / checked_run(run or self.run or BY_HAND)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def inside(folder: Path, relative: str) -> Path:
    """A path below a folder, with every link on the way followed.

    Raises:
        DataError: It leaves the folder, or is no path.
    """
    remedy = "name a file inside the study's folder"
    try:
        path = (folder / relative).resolve()
    except (OSError, ValueError, RuntimeError) as why:  # a NUL, a loop of links
        raise DataError(f"{relative!r} is no path ({why}); {remedy}") from why
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f"{relative!r} leaves {folder}; {remedy}")
    return path


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
        raise DesignError(
            f"run {run!r}: expected a name such as 20261124T120000Z-1a2b3c4d, as reports/ has them, or '' for work by hand"
        )
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
        f"{here}: no folder here or above holds data/ and notebooks/; start from the project's folder, "
        "or name it: Study.open(..., root=Path(...))"
    )
