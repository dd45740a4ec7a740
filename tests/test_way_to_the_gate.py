"""What a layer shows, carried through to the decision: the numbers that decide there are those that hold."""

import pytest

from evalkit.benchmark import evidence
from evalkit.benchmark.comparison import compare_many
from evalkit.decision import Rules, decide
from evalkit.records import EvalResult, Evidence

ABOUT = {
    "study": "small",
    "models": {"base": "b", "fine_tuned": "f"},
    "bound_to": {"test_set": "0"},
    "costs": {},
    "noise_floor": {"flip_rate": 0.0},
}


def answers(right):
    return [
        EvalResult(i, f"q {i}", "x", "x" if one else "y", bool(one), True)
        for i, one in enumerate(right)
    ]


def gate(record, **rules):
    found = Evidence(**{f: getattr(record, f) for f in record.__dataclass_fields__})
    decision = decide(
        {"benchmark": found}, study="small", rules=Rules(human_before_deployment=False, **rules)
    )
    return decision


@pytest.mark.parametrize("lower", [False, True])
def test_one_of_several_checkpoints_is_held_against_the_margin_by_the_wider_interval(lower):
    # 10 fixed, 10 regressed of 200: 95% interval +-4.6 points, at 5% / 5 models +-6.1
    old, new = [1] * 100 + [0] * 100, [1] * 90 + [0] * 10 + [1] * 10 + [0] * 90
    others = {"v1": answers(new)} | {f"v{i}": answers(old) for i in range(2, 6)}
    options = {"lower_is_better": "exact_match"} if lower else {}
    alone, _ = compare_many(answers(old), {"v1": answers(new)}, **options)
    several, _ = compare_many(answers(old), others, **options)
    words = {}
    for name, one in (("alone", alone["v1"]), ("several", several["v1"])):
        found = gate(
            evidence.evidence_of(one, **ABOUT), benchmark_needs="not worse", benchmark_margin=0.055
        )
        layer = found.layers[0]
        words[name] = (layer.verdict, found.verdict)
        inside = layer.ci_low > -0.055
        assert inside is (name == "alone")
        assert ("99% interval" in layer.reason) is (name == "several")
    assert words == {"alone": ("not worse", "ship"), "several": ("not shown", "not yet")}
