import json
import random
import string

import pytest

from evalkit.benchmark.doctor import Checkup, examine
from evalkit.show import doctor as shown

TEXT = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo"


def row(text, expected="yes", **more):
    return {
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": expected}],
        **more,
    }


@pytest.fixture
def written(tmp_path):
    def made(rows, name="test.jsonl"):
        path = tmp_path / name
        path.write_text(
            "".join(one + "\n" if isinstance(one, str) else json.dumps(one) + "\n" for one in rows),
            encoding="utf-8",
        )
        return path

    return made


def different(n):
    """Texts of eleven random words of six letters each."""
    draw = random.Random(7)
    return [
        " ".join("".join(draw.choices(string.ascii_lowercase, k=6)) for _ in range(11))
        for _ in range(n)
    ]


def kinds(checkup):
    return {kind: n for kind, n in checkup.counts().items() if kind not in {"size", "thin slice"}}


def test_a_clean_set_has_nothing_to_mend(written):
    found = examine(written([row(text) for text in different(120)]))
    assert kinds(found) == {}
    assert found.healthy
    assert found.n == 120


def test_a_repeated_row_is_a_duplicate_and_another_answer_a_conflict(written):
    texts = different(3)
    found = examine(
        written(
            [
                row(texts[0]),
                row(texts[0].upper() + "  "),
                row(texts[1], "yes"),
                row(texts[1], "no"),
                row(texts[2]),
            ]
        )
    )
    assert kinds(found) == {"duplicate": 1, "conflict": 1}
    assert {one.kind: one.lines for one in found.findings}["conflict"] == (3, 4)
    assert not found.healthy


def test_one_changed_word_is_a_near_duplicate(written):
    found = examine(
        written([row(TEXT), row(TEXT.replace("mike", "nike")), row("something else altogether")])
    )
    assert kinds(found) == {"near-duplicate": 1}
    assert found.findings[0].lines == (1, 2)
    assert found.healthy  # a run takes them: they widen nothing that a cluster does not mend


@pytest.mark.parametrize(
    ("patients", "left"),
    [(("p1", "p1", "p2"), {}), (("p1", "p3", "p2"), {"near-duplicate": 1})],
)
def test_near_duplicates_of_one_declared_source_are_no_finding(written, patients, left):
    texts = [TEXT, TEXT.replace("mike", "nike"), "something else altogether"]
    rows = [row(text, metadata={"patient": one}) for text, one in zip(texts, patients, strict=True)]
    found = examine(written(rows), cluster_field="patient")
    assert kinds(found) == left
    assert f"3 rows from {len(set(patients))} sources" in shown.lines(found)[0]
    assert kinds(examine(written(rows))) == {"near-duplicate": 1}


def test_rows_of_one_template_are_one_finding_not_one_a_pair(written):
    # 40 rows of one template are 780 pairs; each has its own number, so that none is a duplicate
    found = examine(
        written([row(f"{TEXT} {i}") for i in range(40)] + [row("something else altogether")])
    )
    (near,) = (one for one in found.findings if one.kind == "near-duplicate")
    assert near.lines == tuple(range(1, 41))
    assert shown.rows(found)[0]["lines"] == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 28 more"


def test_many_findings_with_one_remedy_are_told_in_few_rows(written):
    texts = different(9)
    found = examine(written([row(text) for text in texts] + [row(f"{text} x") for text in texts]))
    assert kinds(found) == {"near-duplicate": 9}
    near = [one for one in shown.rows(found) if one["kind"] == "near-duplicate"]
    assert [one["lines"] for one in near[:3]] == [
        ", ".join(map(str, one.lines)) for one in found.findings[:3]
    ]
    assert [one["what"] for one in near[3:]] == ["6 more such findings"]
    assert len(near[3]["lines"].split(", ")) == 12
    told = shown.lines(found)
    assert "".join(told).count("keep one") == shown.checkup(found).text.count("keep one") == 4
    assert "near-duplicate 9" in told[0]
    assert str(found) == f"{found.path}: 18 rows, found: near-duplicate 9 and size 1."


def test_training_rows_in_the_test_set_leak(written):
    texts = different(40)
    train = written([row(texts[0]), row("before " + texts[1] + " after")], "train.jsonl")
    found = examine(written([row(text) for text in texts]), train)
    leaks = {one.kind: one.lines for one in found.findings if "leak" in one.kind}
    assert leaks == {"leak (exact)": (1,), "leak (8-gram)": (2,)}


def test_a_template_shared_by_all_rows_is_no_leak(written):
    template = (
        "please read the following note with great care and answer with one single code only note"
    )
    texts = [f"{template} {text}" for text in different(60)]
    train = written([row(f"{template} {TEXT}")], "train.jsonl")
    assert "leak (8-gram)" not in examine(written([row(text) for text in texts]), train).counts()


def test_rows_without_a_slice_value_are_to_be_filled_in(written):
    texts = different(120)
    labelled = [
        row(text, metadata={"channel": "chat"} if i > 1 else {}) for i, text in enumerate(texts)
    ]
    found = examine(written(labelled), slice_fields=["channel"])
    (lacking,) = (one for one in found.findings if one.kind == "no slice value")
    assert (lacking.lines, lacking.about, lacking.n) == ((1, 2), "channel", 2)
    assert shown.said(lacking)[1] == "fill in channel for 2 rows"
    assert found.healthy


def test_unusable_rows_are_findings_with_their_line(written):
    found = examine(written([row("a question"), "{broken", row("another one")]))
    assert kinds(found)["unusable"] == 1
    assert found.findings[0].lines == (2,)
    assert found.n == 2


@pytest.mark.parametrize(("n", "what"), [(0, "0 rows"), (20, "20 rows"), (1001, "1,001 rows")])
def test_the_articles_sizes_are_numbers(written, n, what):
    found = examine(written([row(f"{i} {i * 7919} {i * 104729}") for i in range(n)]))
    sizes = [one for one in found.findings if one.kind == "size"]
    assert sizes[0].n == n
    assert what in shown.said(sizes[0])[0]


def test_what_the_set_can_find_is_said(written):
    found = examine(written([row(text) for text in different(200)]))
    assert found.detectable[0.1] == pytest.approx(
        0.062, abs=5e-4
    )  # STATISTICS: n = 200, psi 10% finds 6.2 points
    assert "6.2 points at 10%" in shown.lines(found)[0]


def test_thin_slices_are_counted(written):
    rows = [
        row(text, metadata={"kind": "rare" if i < 5 else "common"})
        for i, text in enumerate(different(40))
    ]
    found = examine(written(rows), slice_fields=["kind"])
    assert found.slices == {"kind = rare": 5, "kind = common": 35}
    (thin,) = (one for one in found.findings if one.kind == "thin slice")
    assert (thin.about, thin.n) == ("kind = rare", 5)
    assert shown.said(thin)[0] == "kind = rare has 5 rows"


def test_an_id_taken_for_a_slice_field_is_refused_by_name(written):
    rows = [
        row(text, metadata={"patient": f"p{i}", "kind": "ab"[i % 2]})
        for i, text in enumerate(different(120))
    ]
    found = examine(written(rows), slice_fields=["patient", "kind"])
    (many,) = (one for one in found.findings if one.kind == "too many slices")
    assert (many.about, many.n, many.of) == ("patient", 120, 120)
    what, remedy = shown.said(many)
    assert what == (
        "slice field patient has 120 values in 120 rows, such as 'p0', 'p1' and 'p2'; at most 40 can be cut by"
    )
    assert "take patient out of slice_fields" in remedy
    assert not found.healthy
    assert found.slices == {"kind = a": 60, "kind = b": 60}
    assert "thin slice" not in found.counts()


def test_near_duplicates_are_remembered_in_a_file(written, tmp_path):
    path, memory = written([row(TEXT), row(f"{TEXT} x")]), tmp_path / "near.json"
    first = examine(path, memory=memory)
    assert memory.exists()
    assert examine(path, memory=memory).findings == first.findings


def test_without_detectable_differences_nothing_is_said_of_them():
    found = Checkup(path="x", n=9, findings=(), detectable={0.1: None}, slices={}, train=None)
    assert shown.lines(found) == [
        "x: 9 rows; found: nothing; no training file was searched for leaks. Fit to test with."
    ]


def test_what_must_be_mended_is_said_in_words_as_in_the_exit_code(written):
    conflict = [row(TEXT), row(TEXT, expected="another")]
    assert " Mend it before a run." in shown.lines(examine(written(conflict)))[0]
    alike = [row(TEXT), row(f"{TEXT} x")]
    assert " Fit to test with." in shown.lines(examine(written(alike)))[0]


def talk(*said, expected="yes"):
    roles = ["user", "assistant"] * len(said)
    prompt = [
        one if isinstance(one, dict) else {"role": role, "content": one}
        for role, one in zip(roles, said, strict=False)
    ]
    return {"messages": [*prompt, {"role": "assistant", "content": expected}]}


def test_conversations_that_differ_early_are_not_the_same_question(written):
    one, other = different(2)
    rows = [talk(one, "I see.", "And then?"), talk(other, "I see.", "And then?")]
    assert kinds(examine(written(rows))) == {}


def test_conversations_alike_but_for_their_last_words_are_near_duplicates(written):
    long = " ".join(different(4))
    found = examine(written([talk(long, "ok", "And then?"), talk(long, "ok", "And now?")]))
    assert kinds(found) == {"near-duplicate": 1}


def test_a_system_prompt_that_all_share_makes_nothing_alike_or_leaked(written):
    system = {"role": "system", "content": " ".join(different(30))}
    rows = [{"messages": [system, *row(text)["messages"]]} for text in different(12)]
    found = examine(written(rows[:2]), written(rows[2:], "train.jsonl"))
    assert kinds(found) == {}


def test_a_leak_before_the_last_question_is_found(written):
    one, other = different(2)
    found = examine(
        written([talk(one, other, "Why?")]), written([row(f"{one} {other}")], "train.jsonl")
    )
    assert kinds(found) == {"leak (8-gram)": 1}


def test_the_same_words_on_another_image_are_another_prompt(written):
    def asked(image, expected):
        parts = [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
        ]
        return talk({"role": "user", "content": parts}, expected=expected)

    assert kinds(examine(written([asked("QUJD", "a cat"), asked("QUJE", "a dog")]))) == {}
    twice = [{**asked("QUJD", "a cat"), "id": i} for i in (1, 2)]
    assert kinds(examine(written(twice))) == {"duplicate": 1}
