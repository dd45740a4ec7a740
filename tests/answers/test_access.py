"""Places for calls: fewer when refused for the rate, one at a time while the server is away."""

import asyncio
import time

import pytest

from evalkit.answers.endpoint import Access


def access(size=32, patience_s=600.0):
    return Access(size, patience_s=patience_s, wait_initial_s=0.01)


def test_a_round_of_refusals_halves_the_places_and_a_round_of_answers_adds_one():
    found = access()
    for _ in range(32):
        found.limited()
    assert found.limit == 32 - 32 * 0.5
    for _ in range(16):
        found.replied(is_answer=True)
    # 16 + 1/16 + ..., each a little less than 1/16 as the places grow
    assert found.limit == pytest.approx(17, abs=0.05)


def test_there_is_always_one_place_and_never_more_than_asked_for():
    found = access(size=4)
    for _ in range(100):
        found.limited()
    assert found.limit == 1
    for _ in range(100):
        found.replied(is_answer=True)
    assert found.limit == 4


def test_one_refusal_in_twenty_costs_next_to_nothing():
    found, least = access(), 32.0
    for n in range(2000):
        found.limited() if n % 20 == 0 else found.replied(is_answer=True)
        least = min(least, found.limit)
    # a round of twenty: 19/32 gained, 0.5 lost
    assert least >= 31.5


def test_places_are_given_in_order_and_one_that_had_a_place_goes_first():
    order = []

    async def call(found, name, *, in_front=False):
        async with found.place(in_front=in_front):
            order.append(name)
            await asyncio.sleep(0)

    async def main():
        found = access(size=1)
        async with found.place(in_front=False):
            calls = [asyncio.create_task(call(found, name)) for name in "abc"]
            await asyncio.sleep(0)
            calls[1].cancel()  # one that waits may be stopped; its turn goes to the next
            again = asyncio.create_task(call(found, "again", in_front=True))
            await asyncio.sleep(0)
        await asyncio.gather(*calls, again, return_exceptions=True)

    asyncio.run(main())
    assert order == ["again", "a", "c"]


def test_while_the_server_is_away_one_call_probes_and_its_answer_lets_all_go_on():
    inside, most = 0, [0, 0]

    async def call(found, *, works):
        nonlocal inside
        async with found.place(in_front=False), found.alone_while_away():
            begun, inside = time.monotonic(), inside + 1
            most[works] = max(most[works], inside)
            await asyncio.sleep(0.01)
            inside -= 1
            if works:
                found.replied(is_answer=True)
            else:
                assert found.unanswered("no connection", begun, None)

    async def main():
        found = access(size=8)
        assert found.unanswered("no connection", time.monotonic(), None)
        await asyncio.gather(*[call(found, works=False) for _ in range(8)])
        await asyncio.gather(*[call(found, works=True) for _ in range(8)])

    asyncio.run(main())
    assert most == [1, 7]  # the first of those that are answered was the probe


def test_a_failure_among_answers_is_no_outage():
    found, begun = access(), time.monotonic()
    found.replied(is_answer=True)
    assert not found.unanswered("no connection", begun, None)
    assert str(found) == ""


def test_patience_ends_when_nothing_was_answered_for_so_long_but_not_on_one_call_alone():
    found, begun = access(patience_s=5), time.monotonic() - 40
    found.unanswered("no connection", begun, None)
    assert (str(found), found.exhausted) == ("no connection for 40 s", False)
    found.unanswered("no connection", begun, None)  # under way beside it
    assert not found.exhausted
    found.unanswered("no connection", time.monotonic(), None)
    assert found.exhausted
    found.replied(is_answer=True)
    assert (str(found), found.exhausted, round(found.waited_s)) == ("", False, 40)


def test_pauses_grow_with_full_jitter_and_are_never_shorter_than_asked_for():
    found = access()
    drawn = [found.pause_s(7, None) for _ in range(500)]
    # 0.01 x 2^6 = 0.64 s, or anything below
    assert 0 <= min(drawn) < 0.1
    assert 0.5 < max(drawn) <= 0.64
    asked = [found.pause_s(1, 4.1) for _ in range(500)]
    assert 4.1 <= min(asked) < max(asked) <= 4.1 * 1.25
    assert found.pause_s(99, None) <= 60
