"""From answers through comparison and slices to the decision: how often models without a difference pass, or are blocked.

Whole studies are drawn as counts, and each distinct count is tested once by the kit; a few studies go the whole way as
answers, to prove that the counts tell the same.
"""

from functools import cache

import numpy as np
import pytest

from evalkit import stats
from evalkit.benchmark.benchmark import evidence_of
from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.slices import slice_table
from evalkit.decision import Rules, decide
from evalkit.records import EvalResult

pytestmark = pytest.mark.slow
MARGIN, N_SLICES = 0.05, 10


@cache
def mcnemar_of(fixed, regressed, n, alpha=0.05):
    return stats.paired_binary_test(0, fixed, regressed, n - fixed - regressed, alpha=alpha)


def studies(seed, n, disagreement, diff=0.0, runs=1500):
    """Fixed and regressed counts of ten slices of n examples, in many studies."""
    rng = np.random.default_rng(seed)
    chances = [(disagreement + diff) / 2, (disagreement - diff) / 2, 1 - disagreement]
    return rng.multinomial(n, chances, size=(runs, N_SLICES))[..., :2].tolist()


def gate(slices, n):
    """Verdict and blocking slices of one study, told from its counts."""
    whole = mcnemar_of(*(sum(one[at] for one in slices) for at in (0, 1)), n * len(slices))
    adjusted = stats.adjust([mcnemar_of(*one, n).p_exact for one in slices])
    worse = [
        (p < 0.05 and b < c) or is_beyond(b, c, n, len(slices))
        for p, (b, c) in zip(adjusted, slices, strict=True)
    ]
    return whole.verdict, any(worse)


def is_beyond(b, c, n, n_slices):
    level = 0.05 * min(1.0, 2 / n_slices)
    strict = mcnemar_of(b, c, n, level)
    return strict.ci_high < -MARGIN and strict.p_value < level


SIZES = [(15, 0.3), (29, 0.2), (29, 0.4), (60, 0.2), (200, 0.1)]


@pytest.mark.parametrize(("n", "disagreement"), SIZES)
def test_models_without_a_difference_pass_or_are_blocked_in_few_studies(n, disagreement):
    found = [gate(one, n) for one in studies(1, n, disagreement)]
    verdicts = [verdict for verdict, _ in found]
    assert np.mean([verdict != "no difference shown" for verdict in verdicts]) <= 0.062
    assert np.mean([verdict == "better" for verdict in verdicts]) <= 0.035
    assert np.mean([blocked for _, blocked in found]) <= 0.035  # ten null slices


def test_raw_p_values_and_unadjusted_intervals_would_block_many():
    found = studies(2, 29, 0.4, runs=800)
    raw = [
        any(mcnemar_of(*one, 29).p_value < 0.05 and one[0] < one[1] for one in row) for row in found
    ]
    beyond = [any(mcnemar_of(*one, 29).ci_high < -MARGIN for one in row) for row in found]
    assert np.mean(raw) > 0.15  # negative control
    assert np.mean(beyond) > 0.05  # negative control: each slice's own 95% interval


def test_a_small_slice_that_breaks_is_blocked_and_a_gain_elsewhere_does_not_hide_it():
    # nine slices gain 10 points, one of 29 loses 60
    rng = np.random.default_rng(3)
    gains = rng.multinomial(29, [0.15, 0.05, 0.8], size=(400, 9))[..., :2].tolist()
    losses = rng.multinomial(29, [0.0, 0.6, 0.4], size=400)[:, :2].tolist()
    blocked = [gate([*some, one], 29)[1] for some, one in zip(gains, losses, strict=True)]
    assert np.mean(blocked) > 0.99


def side(right, kinds, clusters=None):
    return [
        EvalResult(
            i, "q", "a", "a" if ok else "b", bool(ok), True,
            slices={"kind": kind}, cluster=None if clusters is None else str(clusters[i]),
        )
        for i, (ok, kind) in enumerate(zip(right, kinds, strict=True))
    ]  # fmt: skip


def decided(base, tuned):
    comparison = compare_models(base, tuned)
    record = evidence_of(
        comparison, study="s", bound_to={}, costs={},
        slices=slice_table(comparison, margin=MARGIN),
    )  # fmt: skip
    return decide(
        {"benchmark": record}, study="s", rules=Rules(human_before_deployment=False)
    ).verdict


@pytest.mark.parametrize(("n", "disagreement", "diff"), [(12, 0.4, 0.0), (29, 0.3, 0.12)])
def test_the_whole_way_from_answers_says_what_the_counts_say(n, disagreement, diff):
    for row in studies(4, n, disagreement, diff, runs=12):
        kinds = np.repeat([f"k{at}" for at in range(N_SLICES)], n)
        base = np.concatenate([[0] * b + [1] * c + [0] * (n - b - c) for b, c in row])
        tuned = np.concatenate([[1] * b + [0] * c + [0] * (n - b - c) for b, c in row])
        verdict, blocked = gate(row, n)
        expected = "don't ship" if blocked or verdict == "worse" else "not yet"
        expected = "ship" if verdict == "better" and not blocked else expected
        assert decided(side(base, kinds), side(tuned, kinds)) == expected


def shared(rng, n_clusters, size, icc=0.3, moved=0.3):
    """-1, 0, 1 differences whose sign is shared within a cluster in a part of them; no model is better."""
    common = rng.choice([-1, 1], n_clusters).repeat(size)
    own = rng.choice([-1, 1], n_clusters * size)
    signs = np.where(rng.random(n_clusters * size) < icc**0.5, common, own)
    return signs * (rng.random(n_clusters * size) < moved), np.arange(n_clusters).repeat(size)


@pytest.mark.parametrize("n_clusters", [8, 15, 40])
def test_clusters_keep_the_level_at_any_number_where_examples_do_not(n_clusters):
    rng = np.random.default_rng(5)
    samples = [shared(rng, n_clusters, 12) for _ in range(1200)]
    verdicts = [stats.paired_mean_test(*one).verdict for one in samples]
    assert np.mean([one != "no difference shown" for one in verdicts]) <= 0.062
    alone = [stats.paired_mean_test(d).p_value or 1.0 for d, _ in samples[:500]]
    assert np.mean(np.array(alone) < 0.05) > 0.12  # negative control


@pytest.mark.parametrize("n_moved", [4, 6, 12, 25])
def test_a_score_that_moved_on_few_examples_keeps_the_level(n_moved):
    rng, wrong = np.random.default_rng(6), []
    for _ in range(1200):
        d = np.zeros(300)
        d[:n_moved] = rng.choice([-1, 1], n_moved) * rng.choice([0.1, 0.2, 0.5], n_moved)
        wrong.append(stats.paired_mean_test(d).verdict != "no difference shown")
    assert np.mean(wrong) <= 0.062


@pytest.mark.parametrize("n_items", [4, 8, 20, 50])
def test_three_raters_keep_the_level_on_any_number_of_items(n_items):
    rng = np.random.default_rng(7)
    leaning = rng.normal(0, 1, (1200, n_items, 1)) + rng.normal(0, 1, (1200, n_items, 3))
    rounds = np.where(np.abs(leaning) < 0.3, 0, np.sign(leaning)).astype(int).tolist()
    wrong = [stats.item_mean_test(one).verdict != "no difference shown" for one in rounds]
    assert np.mean(wrong) <= 0.065


def test_the_best_of_ten_checkpoints_that_are_no_better_is_rarely_better():
    rng, best, own = np.random.default_rng(8), [], []
    for row in rng.multinomial(300, [0.1, 0.1, 0.8], size=(1500, 10))[..., :2].tolist():
        tests = [mcnemar_of(*one, 300) for one in row]
        adjusted = stats.adjust([one.p_value for one in tests])
        up = [one.estimate > 0 for one in tests]
        best.append(any(p < 0.05 and gain for p, gain in zip(adjusted, up, strict=True)))
        own.append(any(one.verdict == "better" for one in tests))
    assert np.mean(best) <= 0.05
    assert np.mean(own) > 0.12  # negative control
