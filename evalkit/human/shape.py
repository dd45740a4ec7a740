"""Whether what was read from a JSON file has the shape it needs: said in words, with the place."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
ANY_NAME = ""  # as the only name of a shape: every name there is


def misfit(value: Any, shape: Any, where: str = "") -> str:
    """Where a value is not of a shape, in words; "" when it is.

    Args:
        value: As read from JSON.
        shape: A type (str, int, float, bool); `[shape]`, a list of such; `{name: shape, ...}`, an object with at least
            these names; `{ANY_NAME: shape}`, an object that holds such under any name.
        where: Name of the value.
    """
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _needs(where, value, "a list")
        inner = {f"{where}[{n}]": (one, shape[0]) for n, one in enumerate(value)}
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            return _needs(where, value, "an object")
        if lacking := [name for name in shape if name != ANY_NAME and name not in value]:
            return f"{_at(where)}has no {lacking[0]!r}"
        names = value if ANY_NAME in shape else shape
        inner = {
            f"{where}.{name}" if where else name: (
                value[name],
                shape.get(name, shape.get(ANY_NAME)),
            )
            for name in names
        }
    else:
        return "" if _is(value, shape) else _needs(where, value, _WORDS[shape])
    return next((said for at, (one, of) in inner.items() if (said := misfit(one, of, at))), "")


def _is(value: object, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return type(value) is kind


def _needs(where: str, value: object, what: str) -> str:
    kind = (
        "an object" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else ""
    )
    return f"{_at(where)}is {kind or repr(value)[:40]}, need {what}"


def _at(where: str) -> str:
    return f"{where} " if where else "it "
