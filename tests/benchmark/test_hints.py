"""What rows suggest to declare is told before the first look, and nothing is declared by it."""

import json

import pytest
import yaml

from evalkit.answers.scoring import checker
from evalkit.benchmark.doctor import examine, hints
from evalkit.decision import decide
from evalkit.report.new import new_study, next_step
from evalkit.show import doctor as shown
from evalkit.show import verdict


@pytest.fixture
def rows(tmp_path):
    """A test file of so many rows; `make(i)` gives the expected answer and the metadata."""

    def write(n, make):
        path = tmp_path / "held_out.jsonl"
        with path.open("w") as file:
            for i in range(n):
                expected, metadata = make(i)
                said = [
                    {"role": "user", "content": f"question number {i * 7919}"},
                    {"role": "assistant", "content": expected},
                ]
                file.write(json.dumps({"id": i, "messages": said, "metadata": metadata}) + "\n")
        return path

    return write


def tickets(i):
    return ("bug" if i % 3 else "feature (new)"), {
        "lang": "de" if i % 4 == 0 else "en",
        "customer": f"c{i // 3}",
        "source": "mail",
        "ticket": f"t{i}",
        "tags": ["a", "b"] if i % 2 else ["b"],
        "note": None,
    }


def test_kinds_are_slices_what_rows_share_is_a_cluster_and_ids_and_constants_are_neither(rows):
    found = hints(rows(120, tickets))
    assert found.slices == {
        "lang": {"en": 90, "de": 30}
    }  # not source (one value), not tags (a list)
    assert found.clusters == {"customer": 40}  # not ticket, of which each has its own
    assert shown.hinted(found) == [
        'Rows have lang (en 90, de 30); to cut by: slice_fields: "lang"',
        'Rows share customer (40 values); rows of one source count together: cluster_field: "customer"',
        'Expected answers are one of 2 labels: checker: "regex:bug|feature\\\\ \\\\(new\\\\)"',
    ]
    assert checker(found.checker)("feature (new)")
    assert not checker(found.checker)("a bug")


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        (lambda i: json.dumps({"n": i}), "schema:answer.schema.json"),
        (lambda i: f"E11.{i % 10}: diabetes {i}", "icd10cm"),
        (lambda i: f"a text of its own, number {i}", ""),
        (lambda i: "yes" if i == 3 else "a text " * 30, ""),  # long texts are no labels
    ],
)
def test_the_labels_shape_suggests_a_checker(rows, answer, choice):
    assert hints(rows(60, lambda i: (answer(i), {}))).checker == choice


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({}, "No row has an expected answer: people decide"),
        (
            {"tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]},
            "scorers: tool_call, primary_metric: tool_call",
        ),
        ({"content": "a text"}, ""),
    ],
    ids=["nothing", "calls", "text"],
)
def test_what_no_text_can_be_compared_with_is_told_before_a_metric_is_chosen(
    tmp_path, answer, told
):
    path, asked = tmp_path / "t.jsonl", [{"role": "user", "content": "q"}]
    said = [*asked, {"role": "assistant", **answer}] if answer else asked
    path.write_text("\n".join(json.dumps({"id": i, "messages": said}) for i in range(3)))
    assert told in " ".join(shown.hinted(hints(path)))
    assert len(shown.hinted(hints(path))) == 1 + bool(told)


def test_a_field_that_some_rows_lack_is_no_cluster_but_may_cut(rows):
    found = hints(rows(60, lambda i: (f"text {i}", {"kind": "ab"[i % 2]} if i > 9 else {})))
    assert (list(found.slices), found.clusters) == (["kind"], {})
    partly = hints(rows(60, lambda i: (f"text {i}", {"who": f"w{i // 2}"} if i > 9 else {})))
    assert (partly.slices, partly.clusters) == ({}, {})
    assert "a metadata field such as kind" in shown.hinted(partly)[0]


def test_a_new_study_has_them_as_comments_and_declares_nothing(rows, tmp_path):
    test = rows(120, tickets)
    made = new_study("mine", test=test, base="a", fine_tuned="b", root=tmp_path)
    text = made.read_text()
    assert '# Rows have lang (en 90, de 30); to cut by: slice_fields: "lang"' in text
    values = yaml.safe_load(text)
    assert (values["slice_fields"], values["cluster_field"], values["checker"]) == ("", "", "none")
    assert "Rows share customer (40 values)" in next_step(made)
    seen = yaml.safe_load('{checker: "regex:bug|feature\\\\ \\\\(new\\\\)"}')
    assert seen["checker"] == hints(test).checker  # the line as it stands, without its mark


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\x00"])
def test_values_of_rows_never_leave_their_comment(rows, tmp_path, end):
    hostile = f"x{end}endpoint: evil"
    test = rows(60, lambda i: (f"text {i}", {f"kind{end}live: false": "ab"[i % 2], "lang": hostile + "ab"[i % 2]}))  # fmt: skip
    made = new_study("mine", test=test, base="a", fine_tuned="b", root=tmp_path)
    values = yaml.safe_load(made.read_text())
    assert (values["endpoint"], values["live"]) == ("openai", True)


def test_nothing_declared_is_said_by_the_doctor_and_in_the_report(rows):
    path = rows(120, tickets)
    found = examine(path)
    told = 'No slice is declared, so none can be shown worse or safe; declare slice_fields: "lang"'
    assert found.candidates == ("lang",)
    assert told in shown.lines(found)[1]
    assert "declare slice_fields" in shown.checkup(found).body
    assert "No slice is declared" not in "".join(shown.lines(examine(path, slice_fields=["lang"])))
    assert "add one to their metadata" in shown.undeclared(
        examine(rows(60, lambda i: (f"text {i}", {})))
    )


def test_a_rule_about_slices_says_when_it_has_none_to_stop_at():
    from evalkit.evidence import Evidence

    def rules(slices):
        benchmark = Evidence.of(
            {
                "layer": "benchmark",
                "study": "x",
                "made_at": "",
                "models": {},
                "bound_to": {},
                "simulated": False,
                "metric": "exact match",
                "unit": "examples",
                "primary": None,
                "details": {"slices": slices},
            }
        )
        made = decide({"benchmark": benchmark}, study="x")
        return next(one for one in verdict.rules(made) if "slice" in one)

    assert rules([]).endswith("blocks shipping: no slice is declared, so this rule stops nothing.")
    row = {"slice": "kind = a", "n": 50, "verdict": "better", "standing": "shown safe"}
    assert rules([row]).endswith("blocks shipping.")
    assert "no slice" not in " ".join(verdict.rules(decide({}, study="x", stage="rollout")))
