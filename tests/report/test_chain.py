import json
import re
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat
import pytest

from evalkit.decision import history
from evalkit.errors import DataError, DesignError
from evalkit.report import chain, gate, manifest
from evalkit.show import decision as changes
from evalkit.show import verdict as spoken
from evalkit.study import Study

CANARY = "sk-canary0123456789abcdef"


def outputs(path: Path) -> list[str]:
    cells = json.loads(path.read_text())["cells"]
    texts = [
        output.get("data") or output.get("text") or output.get("evalue")
        for cell in cells
        for output in cell.get("outputs", [])
    ]
    return [
        re.sub(r"T_[0-9a-f]{5}|0x[0-9a-f]+", "id", str(text)) for text in texts
    ]  # ids drawn by pandas, addresses


def skipped(run):
    return tuple(name for name, one in run.chapters.items() if one.skipped)


def run(root: Path, **options):
    return chain.run_study("tiny", root=root, say=lambda _: None, cold=True, **options)


@pytest.fixture(scope="module")
def told(tmp_path_factory, build):
    """One run of a fine, a failing and a hostile chapter, with a key in the environment."""
    root, lines = tmp_path_factory.mktemp("project"), []
    build(root, "01_fine", "02_failing", "03_hostile")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_API_KEY", CANARY)
        return root, chain.run_study("tiny", root=root, cold=True, say=lines.append), lines


@pytest.mark.slow
def test_forked_kernels_come_to_the_same_as_cold_ones(told, tmp_path):
    root, cold, _ = told
    forked = chain.run_study("tiny", root=root, say=lambda _: None)
    assert forked.failed == cold.failed
    for name in cold.chapters:
        ours, theirs = (outputs(run.folder / f"{name}.ipynb") for run in (forked, cold))
        assert ours == theirs


def test_what_a_chapter_prints_is_said_while_it_runs(told):
    _, _, lines = told
    assert "  02_failing: before the fault" in lines


def test_a_failing_chapter_leaves_the_others_a_banner_and_a_broken_gate(told):
    root, done, lines = told
    assert list(done.failed) == ["02_failing"]
    page = done.report.read_text()
    assert "1 of 3 chapters failed. No verdict is given." in page
    assert "Better by 5.0 points at alpha 0.05" in page
    assert 'id="03_hostile"' in page
    assert gate.gate("tiny", root=root).code == 12
    assert lines[0].startswith("tiny: 3 chapters into ")
    assert [line.split(":")[0].strip() for line in lines if "started" in line] == [
        "01_fine",
        "02_failing",
        "03_hostile",
    ]
    assert history.read(Study.open("tiny", root=root))[-1]["failed"] == ["02_failing"]
    # no key in any file below reports/, though a notebook and the environment hold one
    for path in (root / "reports").rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path


def test_the_manifest_tells_what_was_read_and_with_what(told):
    _, done, _ = told
    record = json.loads((done.folder / "manifest.json").read_text())
    assert set(record["files"]) == {
        "data/tiny/study.yaml",
        *(f"notebooks/{name}.ipynb" for name in record["chapters"]),
    }
    assert all(len(value) == 64 for value in record["files"].values())
    assert record["parameters"] == {
        "study": "tiny",
        "title": "A tiny study",
        "run": done.folder.name,
    }
    assert {"evalkit", "python", "papermill"} <= set(record["versions"])


def test_nothing_runs_when_a_parameter_is_refused(project):
    root = project("01_fine")
    with pytest.raises(DesignError, match="alhpa"):
        run(root, parameters={"alhpa": 0.1})
    assert not (root / "reports").exists()


@pytest.mark.slow
def test_the_second_night_keeps_what_stands_in_the_study_and_takes_over_what_is_up_to_date(project):
    root = project("01_fine")
    names = ("ratings/r1/votes/a.jsonl", "plan.lock.json", "looks.jsonl", "journals/base.jsonl")
    kept = {name: root / "data/tiny" / name for name in names}
    for name, path in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    first, second = run(root), run(root, skip_up_to_date=True)
    assert first.folder != second.folder
    assert (skipped(first), skipped(second)) == ((), ("01_fine",))
    assert (second.folder / "01_fine.ipynb").read_bytes() == (
        first.folder / "01_fine.ipynb"
    ).read_bytes()
    assert {name: path.read_text() for name, path in kept.items()} == {name: name for name in kept}
    assert len(history.read(Study.open("tiny", root=root))) == 2
    edited = second.folder / "01_fine.ipynb"
    edited.write_bytes(edited.read_bytes().replace(b"Better", b"Bitter"))
    lines: list[str] = []
    third = chain.run_study("tiny", root=root, skip_up_to_date=True, cold=True, say=lines.append)
    assert skipped(third) == ()
    assert any("nothing is taken over" in one and "01_fine.ipynb: was" in one for one in lines)
    kept["journals/base.jsonl"].write_text("another answer")
    assert skipped(run(root, skip_up_to_date=True)) == ()


def test_a_chapter_that_reads_a_log_outside_the_study_is_never_up_to_date(project):
    root = project("01_fine")
    study = Study.open("tiny", root=root)
    books = [root / "notebooks/01_fine.ipynb", root / "notebooks/06_users.ipynb"]
    books[1].write_bytes(books[0].read_bytes())
    for log, is_same in (("events.sqlite", True), ("LOG_URL", False), ("postgresql://h/d", False)):
        first, second = (
            manifest.fingerprint(study, books, {"event_log": log, "run": run}) for run in ("a", "b")
        )
        assert first["01_fine"] == second["01_fine"]
        assert (first["06_users"] == second["06_users"]) is is_same


def test_chapters_wait_for_what_they_read_and_for_nothing_else():
    books = [Path(f"{number}_x.ipynb") for number in ("01", "02", "03", "04", "05", "06", "07")]
    waiting, order = TopologicalSorter({one: chain._before(one, books) for one in books}), []
    waiting.prepare()
    while ready := waiting.get_ready():
        order.append([book.stem[:2] for book in ready])
        waiting.done(*ready)
    assert order == [["01"], ["02", "03", "05"], ["04", "06"], ["07"]]


def test_only_picks_by_number_or_name(project):
    root = project("01_fine", "02_failing")
    picked = chain.chosen_notebooks(root / "notebooks", ["1"])
    assert [book.stem for book in picked] == ["01_fine"]
    assert chain.chosen_notebooks(root / "notebooks", ["02_failing.ipynb"])[0].stem == "02_failing"
    with pytest.raises(DesignError, match="no notebook '9'; there are 01_fine, 02_failing"):
        chain.chosen_notebooks(root / "notebooks", ["9"])


@pytest.mark.parametrize(
    "text", ["- a\n", "names: [1, 2]\n", "when: 2026-11-24\n", "a: {b: c}\n", "a: [\n"]
)
def test_a_study_file_that_is_not_flat_is_refused(project, text):
    root = project("01_fine", study=text)
    with pytest.raises(DataError, match=r"study\.yaml"):
        run(root)


def test_an_unfinished_run_is_broken_at_the_gate(project):
    root = project("01_fine")
    (root / "reports/tiny/20261124T000000Z-0a0a0a0a").mkdir(parents=True)
    found = gate.gate("tiny", root=root)
    assert (found.code, "did not finish" in found.sentence) == (12, True)


@pytest.mark.parametrize(("verdict", "code"), [("ship", 0), ("don't ship", 10), ("not yet", 11)])
def test_the_gate_answers_by_the_decision(project, decided, verdict, code):
    root = project("01_fine")
    folder = root / "reports/tiny/20261124T000000Z-0a0a0a0a"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"failed": {}}))
    spoken.write(decided(verdict), folder)
    for name in ("tiny", folder.name, str(folder)):
        assert gate.gate(name, root=root).code == code


@pytest.fixture
def night(project, decided):
    """Puts a run into the reports: which notebooks it left out, and its verdict if it came to one."""
    root = project("01_fine", "02_failing")

    def made(name, *, left_out=(), verdict="", failed=()):
        folder = root / "reports/tiny" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(
            json.dumps({"failed": dict.fromkeys(failed, "e"), "left_out": list(left_out)})
        )
        if verdict:
            spoken.write(decided(verdict), folder)
        return root

    return made


FIRST, SECOND, THIRD = (f"2026112{day}T000000Z-0a0a0a0a" for day in (1, 2, 3))


def test_the_gate_passes_over_newer_partial_runs_and_says_so(night):
    night(FIRST, verdict="ship")
    root = night(SECOND, left_out=["07_decision"])
    night(THIRD, left_out=["01_fine"], verdict="don't ship")
    found = gate.gate("tiny", root=root)
    assert found.code == 0
    assert f"{FIRST}; passed over partial runs (--only): {THIRD} and {SECOND}" in found.judged
    named = gate.gate(THIRD, root=root)
    assert (named.code, named.judged) == (10, "")


def test_an_older_partial_run_is_not_spoken_of_and_a_newer_failed_one_counts(night):
    night(FIRST, left_out=["07_decision"])
    root = night(SECOND, verdict="ship")
    assert gate.gate("tiny", root=root).judged.endswith(SECOND)
    night(THIRD, failed=["01_fine"], verdict="ship")
    assert gate.gate("tiny", root=root).code == 12


def test_only_partial_runs_are_answered_by_the_newest_with_what_to_do(night):
    night(FIRST, left_out=["01_fine"], verdict="ship")
    root = night(SECOND, left_out=["02_failing", "07_decision"])
    found = gate.gate("tiny", root=root)
    assert (found.code, "tiny has no complete one yet" in found.judged) == (12, True)
    assert "without 02_failing and 07_decision; `evalkit run tiny` runs all" in found.sentence
    night(THIRD, left_out=["01_fine"], verdict="not yet")
    assert gate.gate("tiny", root=root).code == 11


@pytest.mark.slow
def test_a_run_that_leaves_notebooks_out_records_them(project):
    root = project("01_fine", "02_failing")
    record = json.loads((run(root, only=["01"]).folder / "manifest.json").read_text())
    assert record["left_out"] == ["02_failing"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("reports/tiny", "not a run's folder"),
        (f"reports/tiny/{SECOND}", "no such run"),
        (SECOND, f"holds no run {SECOND}"),
    ],
)
def test_a_run_that_is_not_there_is_no_broken_run(night, monkeypatch, name, told):
    root = night(FIRST, verdict="ship")
    monkeypatch.chdir(root)
    with pytest.raises(DataError, match=told):
        gate.gate(name)


@pytest.mark.parametrize("text", ["null", "[1]", "{"])
def test_a_damaged_manifest_is_a_broken_run(night, text):
    root = night(FIRST, verdict="ship")
    (root / "reports/tiny" / FIRST / "manifest.json").write_text(text)
    found = gate.gate("tiny", root=root)
    assert (found.code, "not a manifest" in found.sentence) == (12, True)


def test_a_test_set_that_chose_before_wears_out():
    rows = [{"run": n, "bound_to": {"test_set": "t", "fine_tuned": f"f{n % 3}"}} for n in range(6)]
    now = {"run": "now", "bound_to": {"test_set": "t", "fine_tuned": "f9"}}
    assert "has judged 4 sets of answers" in changes.worn_out(rows, now)
    assert changes.worn_out(rows, now | {"bound_to": {"test_set": "u", "fine_tuned": "f9"}}) == ""
    assert changes.worn_out([], now) == changes.worn_out([], {}) == ""
    assert "has judged 10 sets" in changes.worn_out([], now | {"n_compared": 10})


def test_history_says_what_changed():
    row = {"run": "a", "made_at": "2026-11-23T01:00:00", "failed": [], "verdict": "not yet", "bound_to": {"fine_tuned": "1"},
           "metrics": {"exact_match": {"estimate": 0.10}}}  # fmt: skip
    now = row | {
        "run": "b",
        "verdict": "ship",
        "bound_to": {"fine_tuned": "2"},
        "metrics": {"exact_match": {"estimate": 0.12}},
    }
    told = changes.what_changed([row], now)
    assert told == (
        "Since the run of 2026-11-23 01:00: the fine-tuned model's answers are new; the verdict went from not yet to ship; "
        "the difference in exact match went from +10.0 to +12.0 points (not tested)."
    )
    assert "Nothing changed" in changes.what_changed([row], row | {"run": "b"})
    assert "first run" in changes.what_changed([], now)


@pytest.mark.parametrize(
    ("answers", "model", "told"),
    [
        ("1", "m", "answers are those of the run of 2026-11-23 01:00"),  # back to a checkpoint
        ("3", "older", "answers are another model's"),
        ("3", "m", "answers are new"),
    ],
)
def test_answers_that_were_there_before_are_not_called_new(answers, model, told):
    def row(run, hour, answers, model="m"):
        return {"run": run, "made_at": f"2026-11-23T0{hour}:00:00", "metrics": {"exact_match": {}},
                "models": {"fine_tuned": model}, "bound_to": {"fine_tuned": answers}}  # fmt: skip

    now = row("c", 3, answers, model)
    said = changes.what_changed([row("a", 1, "1"), row("b", 2, "2")], now)
    assert said == f"Since the run of 2026-11-23 02:00: the fine-tuned model's {told}."


def test_another_scorer_under_the_same_name_is_told():
    row = {"run": "a", "made_at": "2026-11-23T01:00:00", "metrics": {"half": {}},
           "own_code": {"mine.py": "1", "b.py": "2"}}  # fmt: skip
    now = row | {"run": "b", "own_code": {"mine.py": "9", "b.py": "2", "new.py": "3"}}
    assert changes.what_changed([row], now) == (
        "Since the run of 2026-11-23 01:00: mine.py, which scores answers, is another."
    )
    assert "Nothing changed" in changes.what_changed([row | {"own_code": {}}], now)


NIGHT = {"run": "a", "made_at": "2026-11-23T01:00:00", "failed": [], "verdict": "not yet", "stage": "pre_deploy",
         "bound_to": {"fine_tuned": "1"}, "metrics": {"exact_match": {"estimate": 0.10}},
         "declared": {"rules": {"slice_worse": "blocks"}},
         "layers": {"benchmark": "better", "human": "too early"}, "effects": {"benchmark": "+10.0 (+5.0 to +15.0)"},
         "parameters": {"slice_fields": "", "seed": 7}}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {
                "layers": NIGHT["layers"] | {"human": "no difference shown"},
                "effects": {"human": "48.2% (40.2 to 56.3)"},
            },
            "the human rating went from too early to no difference shown, 48.2% (40.2 to 56.3)",
        ),
        (
            {"parameters": {"slice_fields": "channel", "seed": 7}},
            "slice_fields went from nothing to channel",
        ),
        (
            {"declared": {"rules": {"slice_worse": "warns"}}},
            "slice_worse went from blocks to warns",
        ),
        ({"stage": "rollout"}, "stage went from pre_deploy to rollout"),
    ],
)
def test_history_says_which_layer_parameter_or_rule_changed(change, told):
    assert (
        changes.what_changed([NIGHT], NIGHT | {"run": "b"} | change)
        == f"Since the run of 2026-11-23 01:00: {told}."
    )


def test_a_row_written_before_effects_were_kept_is_compared_by_its_verdicts():
    old = {
        name: NIGHT[name]
        for name in ("run", "made_at", "failed", "verdict", "bound_to", "metrics", "layers")
    }
    assert "Nothing changed" in changes.what_changed(
        [old], NIGHT | {"run": "b", "effects": {"human": "50.0%"}}
    )


def test_after_a_broken_run_it_is_not_called_the_first():
    broken = {"run": "a", "failed": ["01_benchmark"], "metrics": {}}
    told = changes.what_changed([broken], NIGHT | {"run": "b"})
    assert (
        told
        == "There is nothing to compare it with: of 1 earlier run, none finished without a failure and with a benchmark."
    )


def test_a_row_keeps_the_parameters_its_notebooks_were_given(tmp_path):
    given = {"run": "a", "seed": 7, "base_journal": "x.jsonl"}
    for name, parameters in {"01_fine": given, "07_decision.partial": {"seed": 8}}.items():
        (tmp_path / f"{name}.ipynb").write_text(
            json.dumps({"metadata": {"papermill": {"parameters": parameters}}})
        )
    assert history.row_now(tmp_path)["parameters"] == {"seed": 7}


def test_a_torn_last_line_of_the_history_is_passed_over(project):
    study = Study.open("tiny", root=project("01_fine"))
    (study.folder / "history.jsonl").write_text('{"run": "a"}\n{"run": "b"')
    assert history.read(study) == [{"run": "a"}]
    (study.folder / "history.jsonl").write_text('{"run": \n{"run": "b"}\n')
    with pytest.raises(DataError, match=r"history\.jsonl:1: not JSON"):
        history.read(study)


def test_the_fixtures_are_valid_notebooks():
    for path in (Path(__file__).with_name("notebooks")).glob("*.ipynb"):
        nbformat.validate(nbformat.read(path, as_version=4))


HALF = r"a\uD800b \udfff"  # as YAML and JSON escape it


@pytest.fixture
def quoting(project):
    """A study whose title is half a character, and a chapter that is given one, reads one and quotes it everywhere."""
    cell = nbformat.v4.new_code_cell
    root = project(study=f'study: tiny\ntitle: "{HALF}"\nmodel: "{HALF}"\n')
    lines = [
        "from evalkit import show",
        r"half = 'a\ud800b'",
        "show.table([{half: half, 'n': 1}], caption=half)",
        "show.answer(half + model)",
    ]
    asked = cell('model: str = ""  # A model.', metadata={"tags": ["parameters"]})
    told = [asked, cell("\n".join(lines[:3])), cell(lines[3])]
    fails = cell("from evalkit.errors import DataError\nraise DataError('x\\ud800y')")
    for name, cells in (("01_quotes", told), ("02_fails", [asked, *told[1:2], fails])):
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Q?"), *cells])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "x", "language": "python"}
        nbformat.write(book, root / "notebooks" / f"{name}.ipynb")
    return root


@pytest.mark.slow
def test_half_a_character_in_title_model_table_or_error_leaves_a_report(quoting):
    done = run(quoting, parameters={"model": "m\udc80n"})
    assert done.failed == {"02_fails": r"DataError: x\ud800y"}
    page = done.report.read_text(encoding="utf-8")
    assert r"<b>a\ud800b \udfff</b>" in page
    assert r"a\ud800bm\udc80n" in re.sub("<[^>]+>", "", page)
    assert r"DataError: x\ud800y" in page
    given = json.loads((done.folder / "manifest.json").read_text())["parameters"]
    assert (given["title"], given["model"]) == (r"a\ud800b \udfff", r"m\udc80n")


def test_a_study_files_half_characters_are_gone_at_the_door(project):
    root = project(study=f'study: tiny\ntitle: "{HALF}"\n')
    assert Study.open("tiny", root=root).given["title"] == r"a\ud800b \udfff"
