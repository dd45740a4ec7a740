"""The worker thread's loop and the pool of workers, without any model."""

import asyncio
import itertools
import threading
import time
from contextlib import aclosing

import pytest

from evalkit.answers.runner import in_pool, run_apart


def pooled(items, work, size):
    async def main():
        async with aclosing(in_pool(items, work, size)) as pool:
            return [result async for result in pool]

    return asyncio.run(main())


async def doubled(n):
    await asyncio.sleep(0.001 * (n % 3))
    return 2 * n


@pytest.mark.parametrize("size", [1, 3, 50])
def test_every_item_is_worked_on_once(size):
    assert sorted(pooled(iter(range(20)), doubled, size)) == [2 * n for n in range(20)]


def test_nothing_to_do_is_done():
    assert pooled(iter([]), doubled, 3) == []


def test_items_are_taken_only_when_a_worker_is_free():
    taken = itertools.count()

    async def main():
        async with aclosing(
            in_pool(taken, doubled, 4)
        ) as pool:  # endless: gathering it all would never end
            async for _ in pool:
                await asyncio.sleep(0.05)
                break

    asyncio.run(main())
    assert next(taken) <= 1 + 3 * 4  # one read, at most 8 waiting, 4 under way


def test_a_failure_ends_the_pool_and_the_others_are_cancelled():
    cancelled = []

    async def work(n):
        try:
            await asyncio.sleep(0.01 if n == 0 else 5)
        except asyncio.CancelledError:
            cancelled.append(n)
            raise
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        pooled(iter(range(9)), work, 3)
    assert sorted(cancelled) == [1, 2]


def test_none_is_a_result_too():
    async def nothing(n):
        return None

    assert pooled(iter(range(3)), nothing, 2) == [None] * 3


def test_the_work_runs_apart_while_the_caller_polls_in_its_own_thread():
    polls = []

    async def main():
        await asyncio.sleep(0.3)
        return threading.current_thread().name

    name = run_apart(main, poll=lambda: polls.append(threading.current_thread()), every_s=0.05)
    assert name == "evalkit"
    assert len(polls) >= 3
    assert set(polls) == {threading.current_thread()}


def test_a_failure_comes_back_as_it_was():
    async def main():
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        run_apart(main, poll=lambda: None)


def test_a_time_out_of_the_work_is_not_mistaken_for_waiting():
    async def main():
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        run_apart(main, poll=lambda: None)


def test_when_drawing_fails_the_work_is_ended_first():
    ended = []

    async def main():
        try:
            await asyncio.sleep(5)
        finally:
            ended.append(True)

    def poll():
        raise OSError("no screen")

    started = time.monotonic()
    with pytest.raises(OSError, match="no screen"):
        run_apart(main, poll=poll, every_s=0.05)
    assert ended == [True]
    assert time.monotonic() - started < 2
