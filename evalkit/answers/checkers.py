"""Checkers say whether an answer has the right form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from evalkit.answers.own_code import blamed, called, is_own, own_function
from evalkit.errors import DataError, DesignError
from evalkit.files import read_json
from evalkit.records import Example
from evalkit.study import inside

Checker = Callable[[str], bool | None]

_ARTICLE_LINE = re.compile(r"^[A-Z]\d{2}\.\d{1,2}: .+")
_ICD10CM_LINE = re.compile(r"[A-Z]\d[0-9AB](\.[0-9A-Z]{1,4})?(:\s.+)?\Z")


def check_format(output: str) -> bool:
    """The article's checker: every line reads `A00.0: description`.

    It knows only codes with one or two digits after the point; `checker("icd10cm")` knows them all.

    Example:
        >>> check_format("E11.65: Type 2 diabetes with hyperglycemia"), check_format("I10: Hypertension")
        (True, False)
    """
    return all(_ARTICLE_LINE.match(line) for line in output.strip().split("\n"))


def icd10cm_format(output: str) -> bool:
    """Every line that is not blank starts with a code of ICD-10-CM's syntax, alone or followed by `: description`.

    Example:
        >>> [icd10cm_format(f"{code}: x") for code in ("I10", "E11.649", "S72.001A", "M1A.0110", "11.6")]
        [True, True, True, True, False]
    """
    lines = [line.strip() for line in output.split("\n") if line.strip()]
    return bool(lines) and all(_ICD10CM_LINE.match(line) for line in lines)


def unchecked(output: str) -> None:
    """The checker "none": no answer has a right or a wrong form, and no results carry the metric `format`."""


def checker(choice: str | Checker, *, folder: Path | None = None) -> Checker:
    """A checker by name: article, icd10cm, none, `regex:<pattern>` (whole answer), `schema:<file>`; or any callable.

    `mine.py:name` is a function of one's own: (answer) -> True or False.

    Args:
        choice: Name or callable(answer) -> bool.
        folder: Where a relative path starts; the working directory by default.

    Raises:
        DesignError: No such checker, a broken pattern, no readable schema, or a file that fails.
    """
    if callable(choice):
        return choice
    kind, _, rest = str(choice).partition(":")
    if kind == "regex" and rest:
        return _regex_checker(rest)
    if kind == "schema" and rest:
        return _schema_checker(inside(folder, rest) if folder else Path(rest))
    if is_own(choice):
        return own_function(choice, kind="checker", folder=folder)
    if choice not in CHECKERS:
        names = ", ".join(CHECKERS)
        raise DesignError(
            f"checker {choice!r}: use {names}, regex:<pattern>, schema:<file>, FILE.py:NAME or a callable"
        )
    return CHECKERS[choice]


CHECKERS: Mapping[str, Checker] = {
    "article": check_format,
    "icd10cm": icd10cm_format,
    "none": unchecked,
}


def _regex_checker(pattern: str) -> Checker:
    try:
        compiled = re.compile(pattern)
    except re.error as why:
        raise DesignError(f"checker regex:{pattern}: not a regular expression ({why})") from why
    return lambda output: compiled.fullmatch(output.strip()) is not None


def _schema_checker(path: Path) -> Checker:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry

    remedy = "name another file, or checker: none"
    try:
        schema = read_json(path, said="no readable JSON schema", remedy=remedy)
        if not isinstance(schema, dict):
            raise SchemaError("it is no object")
        kind = validator_for(schema)
        kind.check_schema(schema)
    except DataError as why:
        raise DesignError(f"checker schema:{why}") from why
    except SchemaError as why:
        said = " ".join(why.message.split())[:200]
        raise DesignError(f"checker schema:{path}: no JSON schema ({said}); {remedy}") from why
    validator = kind(schema, registry=Registry())  # an empty one: a schema never fetches another

    def is_valid(output: str) -> bool:
        try:
            return validator.is_valid(json.loads(output))
        except (ValueError, RecursionError):
            return False

    return is_valid


def has_form(check: Checker, row: Example, text: str) -> bool:
    """Whether a row's answer has the form.

    Raises:
        DesignError: The checker raised, or said neither True nor False.
    """
    if check in CHECKERS.values():
        return bool(check(text))
    what = f"checker {getattr(check, '__name__', check)}"
    given = called(what, check, row, text)
    if not isinstance(given, bool):
        raise blamed(what, row, f"gave {given!r:.80}; need True or False")
    return given
