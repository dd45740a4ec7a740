"""The kit's own event loop in a thread of its own, so that a sync call works where a loop is running already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _End:
    """No more results, and why."""

    failure: Exception | None = None


def run_apart(
    main: Callable[[], Coroutine[Any, Any, T]], *, poll: Callable[[], None], every_s: float = 0.1
) -> T:
    """Runs a coroutine in a worker thread's loop; the caller waits, polls, and passes an interrupt on.

    Args:
        main: Makes the coroutine.
        poll: Called in the caller's thread, e.g. to draw progress.
        every_s: Seconds between two polls.
    """
    done: Future[T] = Future()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
    thread = Thread(target=_host, args=(main, started, done), name="evalkit", daemon=True)
    thread.start()
    try:
        while not wait([done], timeout=every_s).done:
            poll()
    except BaseException:  # an interrupt, or a failed drawing: the work must end before we go
        with suppress(RuntimeError):  # its loop has just ended by itself
            loop, task = started.result()
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    thread.join()
    return done.result()


async def in_pool(
    items: Iterator[T], work: Callable[[T], Awaitable[R]], size: int
) -> AsyncGenerator[R, None]:
    """Yields `work(item)` as each is done, with `size` at work at once; takes an item only when a worker is free."""
    results: asyncio.Queue[Any] = asyncio.Queue(maxsize=2 * size)

    async def worker() -> None:
        for item in items:
            await results.put(await work(item))

    async def foreman(workers: list[asyncio.Task[None]]) -> None:
        try:
            await asyncio.gather(*workers)
            await results.put(_End())
        except Exception as why:
            await results.put(_End(why))

    workers = [asyncio.create_task(worker()) for _ in range(size)]
    head = asyncio.create_task(foreman(workers))
    try:
        while not isinstance(result := await results.get(), _End):
            yield result
        if result.failure is not None:
            raise result.failure
    finally:
        for task in (*workers, head):
            task.cancel()
        await asyncio.gather(*workers, head, return_exceptions=True)


def _host(
    main: Callable[[], Coroutine[Any, Any, T]],
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]],
    done: Future[T],
) -> None:
    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        return await main()

    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            done.set_result(runner.run(watched()))
    except BaseException as why:
        done.set_exception(why)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # where it does not install, asyncio's own
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
