import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from evalkit.report import manifest, page


@pytest.fixture
def body_of(tmp_path):
    """The chapter made of some cells."""

    def made(*cells):
        path = tmp_path / "03_rate.ipynb"
        nbformat.write(new_notebook(cells=[new_markdown_cell("# A title?"), *cells]), path)
        return page.chapter(path, {"error": None}).body

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


def test_one_chapter_is_told_as_one():
    record = dict.fromkeys(("study", "run", "platform"), "x") | {
        "parameters": {}, "journals": {}, "versions": {}, "seconds": 12.0, "chapters": {"01_benchmark": {}},
    }  # fmt: skip
    assert page._facts(record, None, {})["Duration"] == "12 s, 1 chapter"


def test_a_journal_of_old_that_says_none_denies_no_row_its_own_system_prompt(tmp_path):
    path = tmp_path / "base.jsonl"
    path.write_text('{"model": "a", "about": {"system_prompt_use": "none", "server": "s"}}\n')
    assert manifest._header(path)["about"] == {
        "system_prompt_use": "none beside the rows' own",
        "server": "s",
    }
    path.write_text('{"model": "a", "about": "no mapping"}\n')
    assert manifest._header(path) == {"problem": "its first line is no header"}
