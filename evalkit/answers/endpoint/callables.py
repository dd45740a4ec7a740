"""A plain function of one's own as a model."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

from evalkit.answers.thinking import split
from evalkit.errors import DesignError
from evalkit.records import Answer
from evalkit.redaction import known_secrets, without_secrets
from evalkit.wording import cleaned, flattened, redacted

Messages = Sequence[Mapping[str, Any]]
ModelFunction = Callable[[list[dict[str, Any]]], str | Awaitable[str | None] | None]


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
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            called
        )

    async def ask(
        self, messages: Messages, *, request: Mapping[str, Any] | None = None, first: bool = False
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
        plain = [dict(message) for message in messages]
        started = perf_counter()
        try:
            text = await self._called(plain)
        except Exception as why:
            return self._failed(f"{type(why).__name__}: {why}", started)
        if text is not None and not isinstance(text, str | list):
            return self._failed(
                f"the model function returned {type(text).__name__}; it must return text", started
            )
        clean, sanitized = cleaned(without_secrets(flattened(text), self._secrets))
        thinking, clean = ("", clean) if self._strip_think is False else split(clean)
        latency_ms = (perf_counter() - started) * 1000
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

    async def _called(self, messages: list[dict[str, Any]]) -> Any:
        if self._is_async:
            found = self._function(messages)
        else:
            found = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._function, messages
            )
        return await found if inspect.isawaitable(found) else found

    def _failed(self, error: str, started: float) -> Answer:
        return Answer(
            text="",
            outcome="error",
            error=redacted(cleaned(error)[0], self._secrets)[:2000],
            latency_ms=(perf_counter() - started) * 1000,
        )
