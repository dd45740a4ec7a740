"""What tells one function that answers as a model from another, so that no journal mixes the answers of two.

A function that its module knows by its name is that name, as pickle has it; so is whatever stands there decorated. A
function made inside another shares its name with every other one made there: it is told apart by the values it was made
with. What has neither - a partial, an object, a method of one, a lambda, a function made around an object - needs a name.
"""

from __future__ import annotations

import collections
import dis
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from evalkit.errors import DesignError

_TALLIES = (
    collections.Counter,
    collections.defaultdict,
    collections.deque,
)  # kept by the function, not given to it
_PLAIN = (type(None), bool, int, float, str, bytes, Path)


def identity(function: Callable[..., Any]) -> dict[str, str]:
    """The module of a function, and a hash of the values it was made with ("" when its name says all).

    Raises:
        DesignError: It has no name of its own; the message says why.
    """
    module = str(getattr(function, "__module__", ""))
    if _stands_in_its_module(function):
        return {"module": module, "made_with": ""}
    if not isinstance(function, FunctionType):
        raise DesignError(f"{_said(function)} has no name of its own {_REMEDY}")
    if function.__qualname__.endswith("<lambda>"):
        raise DesignError(f"a lambda has no name of its own {_REMEDY}")
    parts = json.dumps(_described(function, ()), sort_keys=True)
    return {"module": module, "made_with": hashlib.sha256(parts.encode()).hexdigest()[:16]}


_REMEDY = (
    'to keep its answers apart from another\'s; give the journal a named function, or say name="..." '
    "and another name for another one"
)


def _stands_in_its_module(function: Callable[..., Any]) -> bool:
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    try:
        return bool(attrgetter(function.__qualname__)(module) == function)
    except AttributeError:
        return False


def _said(function: object) -> str:
    owner = getattr(function, "__self__", None)
    if owner is not None:
        return f"a method of one {type(owner).__name__}"
    return f"a {type(function).__name__} object"


def _described(value: Any, inside: tuple[int, ...]) -> Any:
    """A value as plain JSON that differs where the values differ.

    Raises:
        DesignError: It is an object that cannot be told from another.
    """
    if id(value) in inside:
        return "itself"
    inside = (*inside, id(value))
    if isinstance(value, (*_PLAIN, *_TALLIES)):
        return [type(value).__name__, "" if isinstance(value, _TALLIES) else repr(value)]
    if type(value) is dict:
        return sorted(json.dumps(_described(list(one), inside)) for one in value.items())
    if type(value) in {list, tuple, set, frozenset}:
        parts = [json.dumps(_described(one, inside)) for one in value]
        return parts if type(value) in {list, tuple} else sorted(parts)
    return _described_by_name(value, inside)


def _described_by_name(value: object, inside: tuple[int, ...]) -> Any:
    if isinstance(value, ModuleType | type | BuiltinFunctionType):
        return [getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__)]
    if isinstance(value, FunctionType):
        made_with = dict(_made_with(value))
        return [value.__module__, value.__qualname__, _described(made_with, inside)]
    if isinstance(value, functools.partial):
        return _described([value.func, value.args, value.keywords], inside)
    raise DesignError(f"a function made around {_said(value)} has no name of its own {_REMEDY}")


def _made_with(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Captured variables and defaults; not what the function itself counts up."""
    own = {one.argval for one in dis.get_instructions(function) if one.opname == "STORE_DEREF"}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name not in own:
            yield name, cell.cell_contents
    yield "", [function.__defaults__, function.__kwdefaults__]
