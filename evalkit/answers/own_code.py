"""A function from a study's own file, as scorer or checker: found by `mine.py:half`, called, and blamed with file and line."""

from __future__ import annotations

import re
import runpy
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from evalkit.errors import DataError, DesignError
from evalkit.ledger import sha256_of
from evalkit.records import Example
from evalkit.study import inside

_NAMED = re.compile(r"(?P<file>[^:]+\.py):(?P<name>[^\W\d]\w*)\Z")


class OwnFunction:
    """A function from a study's file; a metric is named by it, whatever the function calls itself."""

    def __init__(self, choice: str, function: Callable[..., Any]) -> None:
        """`choice` is what the study calls it: `mine.py:half`."""
        self._choice, self.__name__ = choice, choice.rpartition(":")[2]
        self._function = function

    def __call__(self, *arguments: str) -> Any:
        """What the function returns."""
        return self._function(*arguments)

    def __repr__(self) -> str:
        return self._choice


def is_own(choice: object) -> bool:
    """Whether a name is of the form `mine.py:half`."""
    return isinstance(choice, str) and _NAMED.match(choice) is not None


def own_function(choice: str, *, kind: str, folder: Path | None = None) -> OwnFunction:
    """The function that `mine.py:half` names; the file is executed.

    Args:
        choice: A file, relative to `folder` and inside it, and a name in it.
        kind: "scorer" or "checker", for messages.
        folder: The study's; the working directory by default.

    Raises:
        DesignError: There is no such file or no such function, or executing the file fails.
    """
    named = _NAMED.match(choice)
    if not named:
        raise DesignError(f"{kind} {choice!r}: need FILE.py:NAME")
    path = _file(folder or Path(), named["file"], f"{kind} {choice}")
    try:
        found = runpy.run_path(str(path)).get(named["name"])
    except (Exception, SystemExit) as why:
        frames = traceback.extract_tb(why.__traceback__)
        lines = [1, *(one.lineno or 0 for one in frames if one.filename == str(path))]
        line = why.lineno if isinstance(why, SyntaxError) else lines[-1]
        told = f"{path}:{line}: {kind} {choice}: the file fails: {_said(why)}"
        raise DesignError(f"{told}; mend it") from why
    if not callable(found):
        raise DesignError(f"{path}: {kind} {choice}: no function {named['name']} in it")
    return OwnFunction(choice, found)


def own_hashes(choices: Iterable[str], folder: Path) -> dict[str, str]:
    """SHA-256 hex of each file that such names come from, by its name; other names have none."""
    files = {named["file"] for one in choices if (named := _NAMED.match(one))}
    return {name: sha256_of(_file(folder, name, name)) for name in sorted(files)}


def called(what: str, function: Callable[..., Any], example: Example, *texts: str) -> Any:
    """What a scorer or checker says of one row, NumPy's booleans as Python's.

    Raises:
        DesignError: It raised; the message names it, the row and the line.
    """
    try:
        given = function(*texts)
    except Exception as why:
        raise blamed(what, example, f"{_said(why)}{_place(why)}") from why
    return bool(given) if getattr(getattr(given, "dtype", None), "kind", "") == "b" else given


def blamed(what: str, example: Example, told: str) -> DesignError:
    """The error that names a scorer or checker and the row it failed at."""
    line = f" (line {example.line})" if example.line else ""
    return DesignError(f"{what}, row {example.example_id!r}{line}: {told}")


def _file(folder: Path, name: str, what: str) -> Path:
    try:
        path = inside(folder, name)
    except DataError as why:
        raise DesignError(f"{what}: {why}") from None
    if not path.is_file():
        raise DesignError(f"{what}: {path}: no such file")
    return path


def _place(why: BaseException) -> str:
    """Where in the function's own file it went wrong, not in the library it called, nor here where it was called."""
    kit, frames = Path(__file__).parent, traceback.extract_tb(why.__traceback__)
    frames = [one for one in frames if Path(one.filename).parent != kit]
    same = [one for one in frames if one.filename == frames[0].filename]
    return f" ({same[-1].filename}:{same[-1].lineno})" if same else ""


def _said(why: BaseException) -> str:
    return f"{type(why).__name__}: {why}" if str(why) else type(why).__name__
