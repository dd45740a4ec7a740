"""Near-duplicates: what the index finds is what comparing all pairs finds, and it is found in seconds, once."""

import json
import random
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.benchmark import doctor as near

draw = random.Random(7)
WORDS = ["".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 9))) for _ in range(3000)]


def text(size, rng=draw):
    """Random words, about `size` characters in all."""
    return " ".join(rng.choices(WORDS, k=size // 6))


def mistyped(one, share):
    """The text with this share of its characters replaced."""
    return "".join(
        draw.choice(string.ascii_lowercase) if draw.random() < share else char for char in one
    )


def reworded(one, share):
    """The text with this share of its words replaced."""
    return " ".join(
        draw.choice(WORDS) if draw.random() < share else word for word in one.split(" ")
    )


def all_pairs(texts, alike):
    """The same question asked of every pair, in plain loops: the second implementation."""
    from rapidfuzz.distance import Indel

    group = list(range(len(texts)))
    for one in range(len(texts)):
        for other in range(one):
            if Indel.normalized_similarity(texts[one], texts[other]) >= alike:
                old, new = group[one], group[other]
                group = [new if label == old else label for label in group]
    return {
        frozenset(place for place, label in enumerate(group) if label == one)
        for one in group
        if group.count(one) > 1
    }


def indexed(texts, alike):
    """What the index finds, whatever the size."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    ordered = [texts[place] for place in order]
    sizes = near.np.array([float(len(one)) for one in ordered])
    labels, _ = near._some_compared(ordered, sizes, alike)
    groups = (
        frozenset(order[place] for place, one in enumerate(labels) if one == label)
        for label in labels
    )
    return {group for group in groups if len(group) > 1}


MADE = {
    "mistyped": lambda one: mistyped(one, 0.04),
    "reworded": lambda one: reworded(one, 0.06),
    "longer": lambda one: f"{one} {text(len(one) // 10)}",
    "cut": lambda one: one[: int(len(one) * 0.93)],
    "turned": lambda one: one[len(one) // 20 :] + one[: len(one) // 20],
}


@pytest.mark.parametrize("how", MADE)
@pytest.mark.parametrize("size", [120, 1000])
def test_the_index_finds_what_all_pairs_find(how, size):
    originals = [text(size) for _ in range(40)]
    texts = [*originals, *(MADE[how](one) for one in originals[:25])]
    wanted = all_pairs(texts, 0.9)
    assert len(wanted) >= 20
    assert indexed(texts, 0.9) == wanted


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9, 0.97])
def test_a_template_that_all_share_hides_nothing(share):
    template = text(int(800 * share))
    originals = [f"{template} {text(int(800 * (1 - share)))} {n}" for n in range(60)]
    texts = [*originals, *(f"{one} x" for one in originals[:10])]
    assert indexed(texts, 0.9) == all_pairs(texts, 0.9)


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(st.text("ab ", max_size=30), unique=True, max_size=12))
def test_small_sets_are_compared_pair_by_pair(texts):
    assert {frozenset(group) for group in near.groups_of(texts, 0.9).groups} == all_pairs(
        texts, 0.9
    )


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(st.text(st.characters()), unique=True, max_size=8))
def test_whatever_stands_in_the_texts_the_index_holds(texts):
    wanted = all_pairs(texts, 0.9)
    assert all(any(group <= known for known in wanted) for group in indexed(texts, 0.9))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "size"), [(5000, 2000), (1000, 20_000)])
def test_long_texts_take_seconds(n, size):
    originals = [text(size) for _ in range(n // 2)]
    texts = [*originals, *(mistyped(one, 0.03) for one in originals)]
    began = time.process_time()
    found = near.groups_of(texts, 0.9)
    assert time.process_time() - began < 5
    assert len(found.groups) == n / 2


@pytest.mark.slow
def test_pairs_beyond_the_budget_are_counted_not_compared():
    template = text(14_000)
    found = near.groups_of([f"{n} {template} {text(6_000)}" for n in range(400)], 0.9)
    assert found.n_left_out > 0


def test_what_was_found_is_remembered_for_these_very_texts(tmp_path):
    memory = tmp_path / "reports" / "near.json"
    texts = ["a long enough line of words", "a long enough line of wards", "something else"]
    assert near.groups_of(texts, 0.9, memory=memory).groups == ((0, 1),)
    told = json.loads(memory.read_text())
    memory.write_text(json.dumps(told | {"groups": [[0, 2]]}))
    assert near.groups_of(texts, 0.9, memory=memory).groups == ((0, 2),)  # not looked for again
    assert near.groups_of(texts[:2], 0.9, memory=memory).groups == ((0, 1),)
    memory.write_text("{torn")
    assert near.groups_of(texts, 0.9, memory=memory).groups == ((0, 1),)
