"""A function of one's own as a model, told from another of its name, so that no journal mixes the answers of two.

A function that its module knows by its name is that name, as pickle has it; so is whatever stands there decorated. A
function made inside another shares its name with every other one made there: it is told apart by the values it was made
with. What has neither - a partial, an object, a method of one, a lambda, a function made around an object - needs a name.
"""

from __future__ import annotations

import asyncio
import collections
import dis
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from time import perf_counter
from types import BuiltinFunctionType, FunctionType, ModuleType

from evalkit.conversation import thoughts_and_answer
from evalkit.errors import DesignError
from evalkit.files import JsonObject
from evalkit.records import Answer
from evalkit.wording import cleaned, flattened, known_secrets, told_by, without_secrets

ModelFunction = Callable[[list[JsonObject]], str | Awaitable[str | None] | None]


class CallableModel:
    """Asks a function of the messages, sync (in a thread) or async; an exception becomes an `error` answer."""

    def __init__(
        self, function: ModelFunction, *, n_threads: int = 16, strip_think: bool | None = None
    ) -> None:
        """Wraps `function(messages) -> str`; a sync one runs in at most `n_threads` threads."""
        self._function, self._strip_think = function, strip_think
        self._secrets = known_secrets()
        self._executor = ThreadPoolExecutor(n_threads, thread_name_prefix="evalkit-model")
        called = getattr(function, "__call__", function)  # noqa: B004 - an object with an async __call__ is async too
        self._is_async = any(map(inspect.iscoroutinefunction, (function, called)))

    async def ask(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        request: Mapping[str, object] | None = None,
        first: bool = False,
    ) -> Answer:
        """Asks once; the function does its own retries, and a first failure stops nothing.

        Raises:
            DesignError: The row holds tools or the like, of which a function would not hear.
        """
        del first
        if request:
            raise DesignError(
                f"rows of the test set hold {', '.join(request)}, and a function is given the messages only; "
                "ask an endpoint, or take them out of the rows"
            )
        plain, started, text, error = [*map(dict, messages)], perf_counter(), None, ""
        try:
            text = await self._called(plain)
        except Exception as why:
            error = f"{type(why).__name__}: {why}"
        if text is not None and not isinstance(text, str | list):
            error = f"the model function returned {type(text).__name__}; it must return text"
        latency_ms = (perf_counter() - started) * 1000
        if error:
            error = told_by(error, self._secrets)
            return Answer(text="", outcome="error", error=error, latency_ms=latency_ms)
        clean, sanitized = cleaned(without_secrets(flattened(text), self._secrets))
        thinking, clean = ("", clean) if self._strip_think is False else thoughts_and_answer(clean)
        return Answer(
            text=clean,
            outcome="ok" if clean.strip() else "empty",
            latency_ms=latency_ms,
            sanitized=sanitized,
            thinking=thinking,
        )

    async def aclose(self) -> None:
        """Lets the threads go, without waiting for a call that hangs."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _called(self, messages: list[JsonObject]) -> object:
        if self._is_async:
            found = self._function(messages)
        else:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._executor, self._function, messages)
        return await found if inspect.isawaitable(found) else found


# kept by the function, not given to it
_TALLIES = (collections.Counter, collections.defaultdict, collections.deque)
_PLAIN_MANY = {list, tuple, set, frozenset}
_PLAIN = (type(None), bool, int, float, str, bytes, Path)


def identity(function: Callable[..., object]) -> dict[str, str | None]:
    """The module of a function, and a hash of the values it was made with ("" when its name says all).

    Raises:
        DesignError: It has no name of its own.
    """
    module = getattr(function, "__module__", None) or ""
    try:
        known = attrgetter(function.__qualname__)(sys.modules.get(module)) == function
    except AttributeError:
        known = False
    if known:
        return {"module": module, "made_with": ""}
    if not isinstance(function, FunctionType) or function.__qualname__.endswith("<lambda>"):
        raise _nameless(function)
    parts = json.dumps(_described(function, ()), sort_keys=True)
    return {"module": module, "made_with": hashlib.sha256(parts.encode()).hexdigest()[:16]}


def _nameless(what: object, around: str = "") -> DesignError:
    name = getattr(what, "__qualname__", f"a {type(what).__name__} object")
    return DesignError(
        f"{around}{name} has no name of its own to keep its answers apart by; give the journal a function that stands in its "
        'module by its name, or say name="..."'
    )


def _described(value: object, inside: tuple[int, ...]) -> object:
    """A value as plain JSON that differs where the values differ.

    Raises:
        DesignError: It is an object that cannot be told from another.
    """
    if id(value) in inside:
        return "itself"
    inside = (*inside, id(value))
    if isinstance(value, (*_PLAIN, *_TALLIES)):
        return [type(value).__name__, "" if isinstance(value, _TALLIES) else repr(value)]
    if isinstance(value, dict) and type(value) is dict:
        return sorted(json.dumps(_described(list(one), inside)) for one in value.items())
    if isinstance(value, list | tuple | set | frozenset) and type(value) in _PLAIN_MANY:
        parts = [json.dumps(_described(one, inside)) for one in value]
        return parts if isinstance(value, list | tuple) else sorted(parts)
    return _described_by_name(value, inside)


def _described_by_name(value: object, inside: tuple[int, ...]) -> object:
    if isinstance(value, ModuleType | type | BuiltinFunctionType):
        return [getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__)]
    if isinstance(value, FunctionType):
        made_with = dict(_made_with(value))
        return [value.__module__, value.__qualname__, _described(made_with, inside)]
    if isinstance(value, functools.partial):
        return _described([value.func, value.args, value.keywords], inside)
    raise _nameless(value, "a function made around ")


def _made_with(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Captured variables and defaults; not what the function itself counts up."""
    own = {one.argval for one in dis.get_instructions(function) if one.opname == "STORE_DEREF"}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name not in own:
            yield name, cell.cell_contents
    yield "", [function.__defaults__, function.__kwdefaults__]
