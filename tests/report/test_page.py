import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from evalkit.answers.journal import Header
from evalkit.decision import decide
from evalkit.report import manifest, page
from evalkit.report.notebook import Executed
from evalkit.show import verdict as spoken
from evalkit.study import Study


@pytest.fixture
def body_of(tmp_path):
    """The chapter made of some cells."""

    def made(*cells):
        path = tmp_path / "03_rate.ipynb"
        nbformat.write(new_notebook(cells=[new_markdown_cell("# A title?"), *cells]), path)
        return page.chapter(path, Executed()).body

    return made


def said(text, **metadata):
    output = new_output("display_data", data={"text/plain": text})
    return new_code_cell("", outputs=[output], metadata=metadata)


def test_what_only_works_in_a_notebook_stays_off_the_page(body_of):
    invitation = new_markdown_cell("## Rate here", metadata={"tags": ["interactive"]})
    body = body_of(
        said("a result"),
        invitation,
        said("a widget", tags=["interactive", "hide-input"]),
        said("the rest"),
    )
    assert "a result" in body
    assert "the rest" in body
    assert "Rate here" not in body
    assert "a widget" not in body


def test_an_error_in_an_interactive_part_is_shown(body_of):
    error = new_output(
        "error", ename="DataError", evalue="votes.jsonl: line 3 is cut off", traceback=[]
    )
    body = body_of(new_code_cell("", outputs=[error], metadata={"tags": ["interactive"]}))
    assert "This chapter stopped here." in body
    assert "line 3 is cut off" in body


def test_what_was_printed_line_by_line_is_folded_away_once(body_of):
    lines = [new_output("stream", name="stdout", text=f"m: line {i}\n") for i in range(3)]
    body = body_of(new_code_cell("", outputs=[*lines, *said("a result").outputs]))
    assert body.count("Messages while it ran") == 1
    assert "m: line 0\nm: line 1\nm: line 2" in body


LIMITS = "## What this cannot tell you\n\nAnything else."


@pytest.fixture
def page_of(tmp_path):
    """The finished page of one chapter in a run that handed no evidence to the decision."""

    def made(stem, *cells, error=None, failed=""):
        book = new_notebook(cells=[new_markdown_cell("# A title?"), *cells])
        nbformat.write(book, tmp_path / f"{stem}.ipynb")
        record = {
            "study": "s",
            "run": "r",
            "made_at": "2026-01-01T00:00:00+00:00",
            "seconds": 1.0,
            "parameters": {},
            "chapters": {stem: {"title": "t", "error": error, "seconds": 1.0, "skipped": False}},
            "failed": {failed or stem: error or "stopped"} if error or failed else {},
            "versions": {"evalkit": "0"},
            "platform": "here",
            "journals": {},
            "files": {},
        }
        (tmp_path / "manifest.json").write_text(json.dumps(record))
        spoken.write(decide({}, study="s"), tmp_path)
        text = page.write_page(tmp_path).read_text()
        section = text[text.index(f'id="{stem}"') : text.index('id="appendix"')]
        shown, _, folded = section.partition("<details")
        return shown, folded

    return made


CELLS = (
    said("before"),
    said("a picture", tags=["picture"]),
    said("a table", tags=["numbers"]),
    new_code_cell(
        "",
        outputs=[
            new_output(
                "display_data",
                data={"text/html": '<p class="ek-answer">It is so. And how.</p>'},
                metadata={"evalkit": True},
            )
        ],
    ),
    new_markdown_cell(LIMITS),
)


def test_answer_picture_and_limits_stand_open_and_all_else_is_folded(page_of):
    shown, folded = page_of("08_mine", *CELLS)
    places = [shown.index(one) for one in ("It is so.", "a picture", "What this cannot tell you")]
    assert places == sorted(places)
    assert 'id="08_mine-numbers"' in folded
    for text in ("It is so. And how", "a picture", "Anything else", "before", "a table"):
        assert (shown + folded).count(text) == 1, text


def test_a_chapter_without_evidence_is_what_is_missing_and_its_price_and_loses_nothing(page_of):
    shown, folded = page_of("04_preference", *CELLS)
    assert "Have people rate pairs of answers, blind: costs <b>" in shown
    assert "What this cannot tell you" not in shown
    for text in ("It is so. And how", "a picture", "Anything else", "before", "a table"):
        assert (shown + folded).count(text) == 1, text


def test_a_chapter_that_prepares_evidence_says_how_far_it_is(page_of):
    shown, folded = page_of("05_plan", *CELLS)
    assert "It is so. And how." in shown
    assert "costs <b>" not in shown
    assert "What this cannot tell you" in folded


def test_a_chapter_that_stopped_says_why_and_folds_the_rest(page_of):
    error = new_output("error", ename="DataError", evalue="line 3 is cut off", traceback=[])
    shown, folded = page_of(
        "04_preference", *CELLS[:1], new_code_cell("", outputs=[error]), *CELLS[-1:], error="x"
    )
    assert "line 3 is cut off" in shown
    assert "costs <b>" not in shown
    assert "before" in folded
    assert "What this cannot tell you" in folded


def test_one_chapter_is_told_as_one():
    made = manifest.Manifest(failed={}, seconds=12.0, chapters={"01_benchmark": Executed()})
    assert page._facts(made, None, {})["Duration"] == "12 s, 1 chapter"


def test_what_a_journal_says_of_itself_is_told_in_words():
    header = {"model": "a", "about": {"slots": 1, "prompt_cache": False, "seen": {}}}
    made = manifest.Manifest(failed={}, seconds=1.0, chapters={}, journals={"base_journal": header})
    told = page._facts(made, None, {})["Answers, base"]
    assert told == "model: a; about: slots: 1; prompt cache: False"


def test_a_journal_of_old_that_says_none_denies_no_row_its_own_system_prompt(project):
    study, told = Study.open("tiny", root=project()), {"system_prompt_use": "none", "server": "s"}
    old = Header(model="a", endpoint="e", parameters={}, about=told)
    (study.folder / "x.jsonl").write_text(json.dumps(old.record()))
    made = manifest._journals(study, {"base_journal": "x.jsonl"})
    assert list(made) == ["base_journal"]
    assert made["base_journal"]["about"] == {
        "system_prompt_use": "none beside the rows' own",
        "server": "s",
    }


def test_a_journal_that_is_none_is_a_problem_of_the_manifest_and_no_end(project):
    study = Study.open("tiny", root=project())
    (study.folder / "x.jsonl").write_text('{"model": "a", "about": "no mapping"}\n')
    for named, problem in (("x.jsonl", "not the header of a journal"), ("../y", "leaves")):
        made = manifest._journals(study, {"base_journal": named})
        assert problem in str(made["base_journal"]["problem"])


def test_a_decision_without_all_chapters_is_not_read_as_a_verdict(page_of):
    none = "No verdict: what could be said without the chapters that failed."
    assert none in page_of("07_decision", *CELLS, failed="01_benchmark")[0]
    assert none not in page_of("07_decision", *CELLS)[0]


def test_a_page_that_comes_without_its_evidence_says_so(page_of, tmp_path):
    (tmp_path / "comparison.json").write_text("{")
    page_of("08_mine", *CELLS)
    text = (tmp_path / "report.html").read_text()
    assert "<dt>Evidence</dt><dd>hashes are missing here: " in text
    assert f"{tmp_path / 'comparison.json'}: " in text
