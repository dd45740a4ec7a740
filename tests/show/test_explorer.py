import json
from dataclasses import replace

import pytest

from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.frames import examples_frame, write_examples
from evalkit.conversation import conversation_html
from evalkit.errors import DataError
from evalkit.records import EvalResult
from evalkit.show.explorer import (
    Explorer,
    Kept,
    read_kept,
    side_by_side,
    write_kept,
)
from evalkit.show.regressions import frame_rows, marked
from evalkit.show.tables import table

HOSTILE = "<img src=x onerror=window.X=1><script>window.X=1</script>"


def result(i, predicted, *, kind):
    right = predicted == f"answer {i}"
    return EvalResult(
        i,
        f"note number {i}",
        f"answer {i}",
        predicted,
        right,
        True,
        slices={"kind": kind},
        scores={"similarity": float(right)},
    )


@pytest.fixture
def pairs():
    kinds = ["single", "single", "multi", "multi"]
    base = [
        result(i, f"answer {i}" if i in (0, 2) else "base was wrong", kind=kind)
        for i, kind in enumerate(kinds)
    ]
    tuned = [
        result(i, f"answer {i}" if i in (0, 1) else f"tuned was wrong {HOSTILE}", kind=kind)
        for i, kind in enumerate(kinds)
    ]
    return compare_models(base, tuned).pairs


def ids(pairs, *, lower_is_better=(), **chosen):
    """What an explorer finds when its filters are set: by the names of its widgets."""
    explorer = Explorer(pairs, metrics=["similarity"], lower_is_better=lower_is_better)
    for name, value in chosen.items():
        getattr(explorer, f"_{name}").value = value
    return explorer.found


def read_notes(path):
    return {example_id: one.note for example_id, one in read_kept(path).items()}


def test_filters_by_status_slice_text_and_sorts_by_loss(pairs):
    assert ids(pairs) == ["0", "1", "2", "3"]
    assert ids(pairs, status="regressed") == ["2"]
    assert ids(pairs, slice="kind = multi") == ["2", "3"]
    assert ids(pairs, text="TUNED wrong") == ["2", "3"]
    assert ids(pairs, metric="similarity")[0] == "2"
    assert ids(pairs, status="fixed", slice="kind = multi") == []


def test_stepping_goes_round_and_an_empty_filter_says_so(pairs):
    explorer = Explorer(pairs, metrics=["similarity"])
    explorer._back.click()
    assert explorer._place.value == "4 of 4"
    explorer._next.click()
    assert explorer._place.value == "1 of 4"
    explorer._status.value = "regressed"
    assert explorer.found == ["2"]
    assert explorer._next.disabled
    explorer._text.value = "nowhere to be found"
    assert explorer._place.value == "no example fits"


def test_hostile_answers_are_shown_as_text(pairs):
    page = side_by_side(pairs[2], flaky="flips")
    assert "<img" not in page
    assert "<script" not in page
    assert "flips" in page


def test_differing_words_are_marked_and_equal_ones_are_not():
    old, new = marked("A01.0: Typhoid fever", "A01.1: Typhoid fever")
    assert old.count("<del>") == new.count("<ins>") == 1
    assert ">Typhoid" not in old.split("<del>")[1].split("</del>")[0]


def test_a_note_is_kept_for_the_next_session_and_the_last_one_wins(pairs, tmp_path):
    notes = tmp_path / "notes.jsonl"
    explorer = Explorer(pairs, notes_file=notes)
    explorer._note.value = "ask the coders"
    explorer._save.click()
    assert Explorer(pairs, notes_file=notes)._note.value == "ask the coders"
    write_kept(notes, "0", Kept(note="settled \ud800"))
    assert read_notes(notes)["0"] == r"settled \ud800"
    assert len(notes.read_text().splitlines()) == 2
    assert json.loads(notes.read_text().splitlines()[0])["example_id"] == "0"


def test_a_note_typed_and_not_saved_is_saved_by_going_on(pairs, tmp_path):
    notes = tmp_path / "notes.jsonl"
    explorer = Explorer(pairs, notes_file=notes)
    explorer._next.click()
    assert not notes.exists()  # nothing was typed
    explorer._note.value = "on 1"
    explorer._status.value = "regressed"
    assert read_notes(notes) == {"1": "on 1"}
    explorer._note.value = "on 2"
    explorer._text.value = "nowhere to be found"
    assert read_notes(notes) == {"1": "on 1", "2": "on 2"}
    assert explorer._note.disabled


def test_a_line_without_a_note_takes_none_away_and_one_edited_by_hand_is_read(tmp_path):
    notes = tmp_path / "notes.jsonl"
    notes.write_text(
        '{"example_id": "0", "note": "mine"}\n{"example_id": "0", "marked": true}\n'
        '{"example_id": "1", "note": "seen", "marked": true}\n'
    )
    with pytest.warns(UserWarning, match=r"notes.jsonl:2: not a note"):
        assert read_kept(notes) == {"0": Kept(note="mine"), "1": Kept(note="seen", marked=True)}


def test_a_note_after_a_torn_line_is_whole(tmp_path):
    notes = tmp_path / "notes.jsonl"
    notes.write_text('{"example_id": "0", "note": "kept", "at": ""}\n{"example_id": "1", "no')
    with pytest.warns(UserWarning, match="unfinished"):
        write_kept(notes, "2", Kept(note="after the crash"))
    assert read_notes(notes) == {"0": "kept", "2": "after the crash"}


def test_a_long_text_scrolls_in_a_box_the_keyboard_reaches_and_a_short_one_does_not(pairs):
    assert "tabindex" not in side_by_side(pairs[0])
    page = side_by_side(replace(pairs[0], base=replace(pairs[0].base, input_text="word " * 200)))
    assert page.count('tabindex="0"') == 1
    assert 'aria-label="Input"' in page


def test_without_somebody_in_front_of_it_a_line_says_where_to_step_through(
    pairs, monkeypatch, capsys
):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.delenv("VSCODE_PID", raising=False)
    Explorer(pairs)._ipython_display_()
    assert (
        capsys.readouterr().out.strip()
        == "Open this notebook in JupyterLab to step through the 4 examples one by one."
    )


def test_a_note_that_cannot_be_written_says_not_saved(pairs, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    explorer = Explorer(pairs, notes_file=blocked / "notes.jsonl")
    explorer._save.click()
    assert explorer._saved.value.startswith("NOT SAVED: note on 0")

    # it is not lost: it stands there again, and leaving it tries again
    explorer._note.value = "keep me"
    explorer._next.click()
    explorer._back.click()
    assert explorer._note.value == "keep me"
    blocked.unlink()
    explorer._next.click()
    assert read_notes(blocked / "notes.jsonl") == {"0": "keep me"}


def test_any_metric_sorts_by_change_or_by_a_model_either_way_and_the_unknown_come_last(pairs):
    # similarity 1 where right: base 1 0 1 0, tuned 1 1 0 0, so the changes are 0 +1 -1 0
    def order(**chosen):
        return [int(one) for one in ids(pairs, metric="similarity", **chosen)]

    assert order() == [2, 0, 3, 1]
    assert order(reverse=True) == [1, 0, 3, 2]
    assert order(of="base") == [1, 3, 0, 2]
    assert order(of="fine-tuned", reverse=True) == [0, 1, 2, 3]
    turned = ids(pairs, metric="similarity", lower_is_better=["similarity"])
    assert turned[0] == "1"
    unknown = [replace(pairs[0], base_values={}), *pairs[1:]]
    assert ids(unknown, metric="similarity") == ["2", "3", "1", "0"]


def test_tags_are_kept_offered_as_a_filter_and_exported(pairs, tmp_path):
    notes = tmp_path / "notes.jsonl"
    explorer = Explorer(pairs, metrics=["similarity"], notes_file=notes)
    explorer._tags.value = "slang, units, slang"
    explorer._next.click()
    explorer._mark.value = True
    assert json.loads(notes.read_text().splitlines()[0])["tags"] == ["slang", "units"]

    again = Explorer(pairs, metrics=["similarity"], notes_file=notes)
    again._only.value = "tag: units"
    assert again.found == ["0"]
    assert again.selected.to_frame()["tags"].tolist() == ["slang, units"]
    again._only.value = "marked"
    assert again.found == ["1"]
    again._export.click()
    assert again._saved.value == "1 example written to selection.jsonl"
    (row,) = map(json.loads, (tmp_path / "selection.jsonl").read_text().splitlines())
    assert (row["example_id"], row["marked"], row["tags"]) == ("1", True, [])
    assert row["messages"] == [{"role": "user", "content": "note number 1"}]


def test_a_tag_of_another_row_never_moves_one_off_the_row(pairs):
    explorer = Explorer(pairs)
    explorer._next.click()
    explorer._tags.value = "new"
    explorer._save.click()
    assert "tag: new" in explorer._only.options
    assert explorer._place.value == "2 of 4"


def test_one_goes_to_an_example_by_its_id_and_a_filter_that_hides_it_is_taken_off(pairs):
    explorer = Explorer(pairs, metrics=["similarity"])
    explorer._status.value = "regressed"
    explorer._metric.value = "similarity"
    explorer.show("2")
    assert explorer.found == ["2"]
    explorer.show(3)
    assert explorer._status.value == "all"
    assert explorer.found[explorer._at] == "3"
    with pytest.raises(DataError, match="no example '31' among 4; did you mean '3'"):
        explorer.show("31")


def test_a_click_on_a_point_goes_to_its_row(pairs):
    explorer = Explorer(pairs, metrics=["similarity"])
    assert explorer._points.points == []  # nothing is sent before it is asked for
    explorer._picture.value = True
    explorer._slice.value = "kind = multi"
    # x base, y fine-tuned, the status (0 regressed, 2 both wrong), the place in the selection
    assert explorer._points.points == [[1.0, 0.0, 0, 0], [0.0, 0.0, 2, 1]]
    explorer._points.picked = 1
    assert explorer._place.value == "2 of 2"
    assert explorer.found[explorer._at] == "3"
    explorer._points.picked = 99
    assert explorer._place.value == "2 of 2"


def test_answers_are_marked_against_each_other_or_against_what_is_expected(pairs):
    assert "<del>" in side_by_side(pairs[2])  # "answer 2" against "tuned was wrong"
    assert "<del>" not in side_by_side(pairs[0], against="expected")
    page = side_by_side(pairs[2], against="expected")
    base, tuned = page.split("<h3>Fine-tuned")
    assert "<ins>" not in base  # the base answer is as expected
    assert ">answer 2<" in tuned.split("<del>")[1].split("</del>")[0]
    explorer = Explorer(pairs)
    explorer._status.value = "regressed"
    explorer._against.value = "the expected answer"
    assert explorer._body.value == page


def test_a_checkpoint_stands_beside_the_two_models_in_search_sort_frame_and_export(pairs, tmp_path):
    third = [result(i, f"answer {i}" if i == 3 else "a third text", kind="x") for i in range(4)]
    base = [one.base for one in pairs]
    name = "<i>step 500</i>"
    explorer = Explorer(
        pairs,
        metrics=["similarity"],
        others={name: compare_models(base, third).pairs},
        notes_file=tmp_path / "notes.jsonl",
    )
    assert explorer._body.value.count("<section>") == 3
    assert "<i>" not in explorer._body.value
    explorer._text.value = "third text"
    assert explorer.found == ["0", "1", "2"]
    explorer._text.value = ""
    explorer._metric.value, explorer._of.value, explorer._reverse.value = "similarity", name, True
    assert explorer.found[0] == "3"
    assert explorer.selected.to_frame()[f"answer_{name}"].tolist()[0] == "answer 3"
    explorer._export.click()
    row = json.loads((tmp_path / "selection.jsonl").read_text().splitlines()[0])
    assert row["others"] == {name: "answer 3"}


def test_five_thousand_examples_are_filtered_one_by_one_key_press():
    rows = [result(i, f"answer {i}", kind="single") for i in range(5_000)]
    explorer = Explorer(compare_models(rows, rows).pairs)
    explorer._text.value = "note number 4321"
    assert explorer.found == ["4321"]


CAPITAL = (
    {"role": "system", "content": "You answer in French."},
    {"role": "user", "content": "Capital of Spain?"},
    {"role": "assistant", "content": "Madrid"},
    {"role": "user", "content": "And its population?"},
)


def test_explorer_table_and_files_show_the_whole_conversation_in_one_way(pairs, tmp_path):
    pair = replace(pairs[2], base=replace(pairs[2].base, messages=CAPITAL))
    shown = conversation_html(CAPITAL)
    assert shown in side_by_side(pair)
    assert shown in table(frame_rows(examples_frame([pair], ("similarity",)))).body
    explorer = Explorer([pair])
    explorer._text.value = "french madrid"
    assert explorer.found == ["2"]
    csv, lines = write_examples([pair], {}, tmp_path)
    assert "system: You answer in French." in csv.read_text(encoding="utf-8-sig")
    assert json.loads(lines.read_text())["messages"] == list(CAPITAL)


def test_a_long_prompt_of_a_row_is_folded_and_whole(pairs):
    text = "word " * 1_000
    long = replace(pairs[2], base=replace(pairs[2].base, input_text=text))
    body = table(frame_rows(examples_frame([long], ("similarity",)))).body
    assert text in body
    assert "<details" in body
