import fcntl
import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, replace
from threading import Thread

import pytest

from evalkit import prepare_human_eval_batch
from evalkit.errors import DataError, DesignError
from evalkit.human.batch import read_batch, read_key
from evalkit.human.rater import Session
from evalkit.human.round import Round


def lefts(batch, rater, items):
    """On how many of these items the fine-tuned answer stands on the rater's left."""
    sides, swapped = batch.key.fine_tuned_side, set(batch.swapped[rater])
    return sum((sides[one] == "a") != (one in swapped) for one in items)


def test_items_read_as_mappings_and_by_attribute_and_the_batch_is_the_articles_list(results):
    batch = prepare_human_eval_batch(results(), results(who="tuned"), 10, seed=1)
    assert len(batch) == len(list(batch)) == 10
    for item in batch:
        assert item["response_a"] == item.response_a
        assert {item["response_a"].split()[0], item["response_b"].split()[0]} == {"base", "tuned"}
        assert dict(item)["input"] == item.input == f"note {item.example_id}"
        assert json.loads(json.dumps(dict(item))) == asdict(item)
    with pytest.raises(KeyError):
        batch[0]["model"]


def test_the_key_alone_tells_whose_answer_is_whose(results):
    batch = prepare_human_eval_batch(results(), results(who="tuned"), 20, seed=1)
    for item in (*batch.items, *batch.repeats):
        tuned = (
            item.response_a if batch.key.fine_tuned_side[item.item_id] == "a" else item.response_b
        )
        assert tuned == f"tuned answer {item.example_id}"


@pytest.mark.parametrize("size", [1, 2, 7, 20, 33])
@pytest.mark.parametrize("seed", range(5))
def test_sides_are_balanced_in_the_batch_for_each_rater_and_with_the_repeats(results, size, seed):
    batch = prepare_human_eval_batch(
        results(), results(who="tuned"), size, seed=seed, raters=("ann", "bob"), repeat_share=0.3
    )
    items, repeats = [one.item_id for one in batch.items], [one.item_id for one in batch.repeats]
    drawn = Counter(batch.key.fine_tuned_side[one] for one in items)
    assert abs(drawn["a"] - drawn["b"]) <= 1
    for rater in batch.raters:
        assert abs(2 * lefts(batch, rater, items) - len(items)) <= 1
        assert abs(2 * lefts(batch, rater, [*items, *repeats]) - len(items) - len(repeats)) <= 1


def test_raters_see_different_sides_of_the_same_items(results):
    batch = prepare_human_eval_batch(
        results(), results(who="tuned"), 20, seed=1, raters=("ann", "bob")
    )
    assert batch.swapped["ann"] != batch.swapped["bob"]
    assert batch.orders["ann"] != batch.orders["bob"]
    assert sorted(batch.orders["ann"]) == sorted(batch.orders["bob"])


def test_a_tenth_comes_back_later_with_its_sides_swapped(results):
    batch = prepare_human_eval_batch(results(60), results(60, who="tuned"), 50, seed=4)
    assert len(batch.repeats) == 5
    order = batch.orders["rater1"]
    for again in batch.repeats:
        first = batch.pairs[batch.key.repeats[again.item_id]]
        assert (again.response_a, again.response_b) == (first.response_b, first.response_a)
        assert (again.item_id in batch.swapped["rater1"]) == (
            first.item_id in batch.swapped["rater1"]
        )
        late = order.index(again.item_id) - order.index(first.item_id)
        assert late > 10 or order.index(first.item_id) > len(order) - 20


def test_identical_answers_are_ties_that_nobody_is_asked_about(results):
    same = range(0, 40, 4)  # 10 of 40
    batch = prepare_human_eval_batch(
        results(same=same), results(who="tuned", same=same), 50, seed=2
    )
    assert sorted(int(one) for one in batch.identical) == list(same)
    assert len(batch) == 30
    assert all(item.response_a != item.response_b for item in batch)


def test_a_sample_larger_than_the_test_set_takes_all(results):
    assert len(prepare_human_eval_batch(results(5), results(5, who="tuned"), 50, seed=1)) == 5


def test_a_stratified_sample_holds_each_slice_in_proportion(results):
    thirds = {
        "slices": lambda i: {"kind": "rare" if i % 4 == 0 else "common"}
    }  # 25 rare, 75 common
    base, tuned = results(100, **thirds), results(100, who="tuned", **thirds)
    for seed in range(10):
        batch = prepare_human_eval_batch(base, tuned, 40, seed=seed, stratify_by="kind")
        assert abs(sum(one.slices["kind"] == "rare" for one in batch) - 10) <= 1  # 40 * 25 / 100


def test_the_same_seed_draws_the_same_batch_and_none_draws_another(results):
    base, tuned = results(), results(who="tuned")
    one, two = (prepare_human_eval_batch(base, tuned, 10, seed=5) for _ in range(2))
    assert (one.items, one.orders, one.swapped, one.key) == (
        two.items,
        two.orders,
        two.swapped,
        two.key,
    )
    free = [prepare_human_eval_batch(base, tuned, 10) for _ in range(2)]
    assert free[0].key.seed != free[1].key.seed
    assert free[0].items != free[1].items


def test_the_batch_file_holds_no_seed_no_role_no_model_and_the_keys_hash(results, tmp_path):
    models = {"base": "llama-x", "fine_tuned": "llama-y"}
    base, tuned = results(), results(who="tuned")
    batch = prepare_human_eval_batch(
        base, tuned, 10, seed=987654321, models=models, folder=tmp_path / "r"
    )
    text = (tmp_path / "r" / "batch.json").read_text(encoding="utf-8")
    for word in ("987654321", "seed", "fine_tuned", "llama", "fine_tuned_side"):
        assert word not in text
    sealed = (tmp_path / "r" / "key.json").read_bytes()
    assert json.loads(text)["key_sha256"] == hashlib.sha256(sealed).hexdigest() == batch.key_sha256
    assert (tmp_path / "r" / "key.json").stat().st_mode & 0o077 == 0
    assert json.loads(sealed)["models"] == models


def test_what_everybody_sees_is_drawn_apart_from_what_the_key_seals(results):
    # item ids, sample and order are public; were the sides drawn by the same generator, some 416 ids of 48 bits would
    # be the 624 words of its state. Drawn apart, the sides do not move when more is drawn for the sample.
    few, many = (
        prepare_human_eval_batch(results(n), results(n, who="tuned"), 20, seed=1) for n in (40, 60)
    )
    assert [one.example_id for one in few] != [one.example_id for one in many]
    assert [*few.key.fine_tuned_side.values()][:20] == [*many.key.fine_tuned_side.values()][:20]


def test_two_runs_that_save_at_once_wait_for_each_other(results, tmp_path):
    batch = prepare_human_eval_batch(results(), results(who="tuned"), 5)
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    other = Thread(target=batch.save, args=(tmp_path,))
    other.start()
    other.join(0.2)
    assert not (tmp_path / "batch.json").exists()
    os.close(held)
    other.join(5)
    assert Round.open(tmp_path).batch.key_sha256 == batch.key_sha256


def test_a_folder_may_be_a_text(results, tmp_path):
    prepare_human_eval_batch(results(), results(who="tuned"), 5, folder=str(tmp_path / "round"))
    assert len(Round.open(str(tmp_path / "round")).batch) == 5


def test_examples_without_the_slice_are_a_stratum_of_their_own(results):
    slices = lambda i: {"kind": "odd"} if i % 2 else {}  # noqa: E731
    batch = prepare_human_eval_batch(
        results(slices=slices), results(who="tuned"), 10, stratify_by="kind"
    )
    assert Counter(len(one.slices) for one in batch) == {
        0: 5,
        1: 5,
    }  # half of the examples carry it


def test_what_is_saved_reads_back_and_is_never_overwritten(results, tmp_path):
    gold = [{"id": f"g{i}", "input": "q", "better": "yes", "worse": "no"} for i in range(3)]
    batch = prepare_human_eval_batch(
        results(), results(who="tuned"), 10, seed=1, gold=gold, folder=tmp_path
    )
    read = read_batch(tmp_path)
    assert read == batch
    assert read.key is None
    assert read_key(tmp_path, batch) == batch.key
    with pytest.raises(DesignError, match="holds a batch already"):
        batch.save(tmp_path)
    with pytest.raises(DesignError, match="read from a file"):
        read.save(tmp_path / "other")


def test_another_key_does_not_open_the_batch(results, tmp_path):
    batch = prepare_human_eval_batch(results(), results(who="tuned"), 10, seed=1, folder=tmp_path)
    key = tmp_path / "key.json"
    key.write_bytes(key.read_bytes().replace(b'"a"', b'"b"', 1))
    with pytest.raises(DataError, match="sealed with"):
        read_key(tmp_path, batch)


def test_it_is_bound_to_the_answers_it_was_made_from(results):
    base, tuned = results(), results(who="tuned")
    seals = [
        prepare_human_eval_batch(base, ft, 5, seed=1).bound_to for ft in (tuned, tuned, tuned[:-1])
    ]
    assert seals[0] == seals[1]
    assert seals[0]["test_set"] == seals[2]["test_set"]
    assert seals[0]["answers"] != seals[2]["answers"]


def test_pairs_are_matched_by_id_not_by_position(results):
    base, tuned = results(), list(reversed(results(who="tuned")))
    batch = prepare_human_eval_batch(base, tuned[:-10], 50, seed=1)
    assert len(batch) == 30
    assert batch.left_out == {"no answer": 0, "unmatched": 10}
    for item in batch:
        assert item.response_a.split()[-1] == item.response_b.split()[-1] == item.example_id


def test_calls_that_failed_have_no_answer_to_show(results):
    tuned = results(10, who="tuned", outcome="error") + results(40, who="tuned")[10:]
    batch = prepare_human_eval_batch(results(), tuned, 50, seed=1)
    assert len(batch) == 30
    assert batch.left_out["no answer"] == 10


def test_results_that_do_not_belong_together_are_refused(results):
    with pytest.raises(DataError, match="no example id"):
        prepare_human_eval_batch(results(3), results(6, who="tuned")[3:])
    from dataclasses import replace

    other = [replace(one, input_text="another question") for one in results(3, who="tuned")]
    with pytest.raises(DataError, match="different inputs"):
        prepare_human_eval_batch(results(3), other)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"sample_size": 0}, "sample_size"),
        ({"sample_size": 2.5}, "whole number"),
        ({"repeat_share": 0.9}, "repeat_share"),
        ({"raters": ()}, "raters"),
        ({"raters": ("ann", "ann")}, "each once"),
        ({"raters": ("../ann",)}, "rater"),
        ({"raters": "amy"}, "list of codes"),
        ({"stratify_by": "colour"}, "colour"),
    ],
)
def test_impossible_wishes_are_refused_by_name(results, options, word):
    with pytest.raises(DesignError, match=word):
        prepare_human_eval_batch(results(), results(who="tuned"), **{"seed": 1, **options})


CAPITAL = (
    {"role": "system", "content": "You answer in French."},
    {"role": "user", "content": "Capital of Spain?"},
    {"role": "assistant", "content": "Madrid"},
    {"role": "user", "content": "And its population?"},
)


def answered(results, *, base=CAPITAL, tuned=CAPITAL):
    sides = ((results(4), base), (results(4, who="tuned"), tuned))
    return [
        [replace(one, input_text="And its population?", messages=messages) for one in some]
        for some, messages in sides
    ]


def test_an_item_carries_the_whole_conversation_and_so_does_its_file(results, tmp_path):
    batch = prepare_human_eval_batch(*answered(results), 4, seed=1, folder=tmp_path / "r")
    for item in read_batch(tmp_path / "r").pairs.values():
        assert item == batch.pairs[item.item_id]
        assert item.messages == list(CAPITAL)
        for message in CAPITAL:
            assert f"{message['role']}: {message['content']}" in item["input"]


def test_a_round_drawn_before_the_conversation_was_kept_still_opens(new_round):
    path = new_round().folder / "batch.json"
    record = json.loads(path.read_text())
    for item in (*record["items"], *record["repeats"]):
        del item["messages"]
    path.write_text(json.dumps(record))
    view = Session(Round.open(path.parent), "rater1").view()
    assert view["conversation"]["turns"][0]["parts"][0]["text"] == view["item"]["input"]


def test_a_system_prompt_that_only_one_model_got_does_not_tell_who_answered(results):
    batch = prepare_human_eval_batch(*answered(results, tuned=CAPITAL[1:]), 4, seed=1)
    assert all(item.messages == list(CAPITAL[1:]) for item in batch)
    assert "French" not in batch[0].input


def test_other_words_before_the_same_last_question_are_another_input(results):
    other = ({"role": "user", "content": "Capital of Peru?"}, *CAPITAL[2:])
    with pytest.raises(DataError, match="different inputs"):
        prepare_human_eval_batch(*answered(results, tuned=(CAPITAL[0], *other)), 4, seed=1)


@pytest.mark.parametrize("odd", [float("nan"), object()])
def test_a_slice_that_no_file_can_hold_is_refused_with_a_message(results, tmp_path, odd):
    base, tuned = (results(who=who, slices=lambda _: {"kind": odd}) for who in ("base", "tuned"))
    with pytest.raises(DataError, match=r"evalkit-batch: cannot be written .*; need texts"):
        prepare_human_eval_batch(base, tuned, 20, folder=tmp_path / "round")
