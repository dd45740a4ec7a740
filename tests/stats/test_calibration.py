"""How often a true null is rejected and how often an interval covers; and that the wrong methods fail.

Every rate is exact (summed over all outcomes) or from a seeded simulation.
"""

import numpy as np
import pytest
from scipy import stats

from evalkit.stats import (
    RatioSums,
    adjust,
    combine_phases,
    confidence_sequence,
    cuped_test,
    item_mean_test,
    obrien_fleming_bounds,
    paired_binary_test,
    paired_mean_test,
    proportion_z_test,
    quantile_by_user,
    ratio_test,
    ratio_test_from_sums,
    sample_ratio_test,
    tango_interval,
)

pytestmark = pytest.mark.slow


def share(rejections):
    return float(np.mean(list(rejections)))


def discordant_tables(n, disagreement, diff):
    """Every (b, c) with its probability above 1e-9."""
    p_b, p_c = (disagreement + diff) / 2, (disagreement - diff) / 2
    b, c = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    kept = b + c <= n
    chance = stats.multinomial.pmf(
        np.stack([b, c, n - b - c], axis=-1)[kept], n, [p_b, p_c, 1 - disagreement]
    )
    common = chance > 1e-9
    return b[kept][common], c[kept][common], chance[common]


@pytest.mark.parametrize(("n", "disagreement"), [(50, 0.1), (100, 0.2), (200, 0.1), (300, 0.3)])
def test_mid_p_keeps_its_level(n, disagreement):
    # given m discordant pairs b is binomial(m, 1/2): exact rejection rate summed over m
    level = 0.0
    for m in range(n + 1):
        weight = stats.binom.pmf(m, n, disagreement)
        if weight > 1e-7:
            k = np.arange(m + 1)
            rejected = [
                paired_binary_test(0, int(b), int(m - b), n - m).p_value < 0.05
                for b in k[: m // 2 + 1]
            ]
            half = stats.binom.pmf(k[: m // 2 + 1], m, 0.5) * rejected
            level += weight * 2 * half.sum()
    assert 0.02 < level <= 0.05


@pytest.mark.parametrize(
    ("disagreement", "diff"), [(0.1, 0.0), (0.1, 0.05), (0.3, 0.1), (0.4, 0.3)]
)
def test_tango_covers(disagreement, diff):
    b, c, chance = discordant_tables(50, disagreement, diff)
    limits = [tango_interval(int(one), int(other), 50) for one, other in zip(b, c, strict=True)]
    covered = np.array([low <= diff <= high for low, high in limits])
    assert (chance * covered).sum() >= 0.94


def clustered_differences(rng, n_clusters, size, icc):
    shared = np.repeat(rng.normal(0, icc**0.5, n_clusters), size)
    return shared + rng.normal(0, (1 - icc) ** 0.5, n_clusters * size)


@pytest.mark.parametrize("n_clusters", [20, 60])
def test_clustered_t_keeps_its_level_where_plain_t_does_not(n_clusters):
    rng, owners = np.random.default_rng(1), np.repeat(np.arange(n_clusters), 8)
    samples = [clustered_differences(rng, n_clusters, 8, 0.3) for _ in range(3000)]
    assert 0.03 <= share(paired_mean_test(d, owners).p_value < 0.05 for d in samples) <= 0.07
    assert (
        share(paired_mean_test(d).p_value < 0.05 for d in samples[:1000]) > 0.15
    )  # negative control


def users_of(rng, n, rate=0.3, icc=0.1):
    requests = rng.geometric(0.2, n)
    spread = (1 - icc) / icc
    return requests, rng.binomial(requests, rng.beta(rate * spread, (1 - rate) * spread, n))


def test_the_user_level_test_keeps_its_level_where_the_request_level_test_does_not():
    rng = np.random.default_rng(2)
    pairs = [(users_of(rng, 500), users_of(rng, 500)) for _ in range(3000)]
    assert 0.04 <= share(ratio_test(*pair).p_value < 0.05 for pair in pairs) <= 0.065

    def by_request(control, treatment):
        return proportion_z_test(
            control[1].sum(), control[0].sum(), treatment[1].sum(), treatment[0].sum()
        ).significant

    assert share(by_request(*pair) for pair in pairs[:1000]) > 0.12  # negative control


def test_obrien_fleming_holds_through_14_looks_where_daily_peeking_does_not():
    rng = np.random.default_rng(3)
    steps = rng.normal(size=(100_000, 14))
    z = steps.cumsum(axis=1) / np.arange(1, 15) ** 0.5
    bounds = np.array(obrien_fleming_bounds([day / 14 for day in range(1, 15)]))
    assert 0.043 <= (np.abs(z) > bounds).any(axis=1).mean() <= 0.057
    assert (np.abs(z) > 1.96).any(axis=1).mean() > 0.15  # negative control


def test_obrien_fleming_loses_little_power():
    rng = np.random.default_rng(4)
    drift = (stats.norm.isf(0.025) + stats.norm.isf(0.2)) / 14**0.5
    z = (rng.normal(drift, 1, (100_000, 14))).cumsum(axis=1) / np.arange(1, 15) ** 0.5
    bounds = np.array(obrien_fleming_bounds([day / 14 for day in range(1, 15)]))
    assert (z > bounds).any(axis=1).mean() == pytest.approx(0.78, abs=0.015)


def test_uneven_looks_hold_too():
    rng, times = np.random.default_rng(5), np.array([0.11, 0.13, 0.5, 0.52, 0.97])
    steps = rng.normal(size=(200_000, 5)) * np.diff(times, prepend=0) ** 0.5
    z = steps.cumsum(axis=1) / times**0.5
    crossed = (np.abs(z) > np.array(obrien_fleming_bounds(times.tolist()))).any(axis=1).mean()
    assert crossed == pytest.approx(
        4 * stats.norm.sf(stats.norm.isf(0.0125) / 0.97**0.5), abs=0.002
    )


def test_the_sample_ratio_alarm_is_rare():
    n, share_treated = 10_000, 0.1
    counts = np.arange(850, 1151)
    alarms = [
        sample_ratio_test([n - int(k), int(k)], [0.9, 0.1]).verdict == "invalid" for k in counts
    ]
    inside = stats.binom.pmf(counts, n, share_treated)
    assert 0.0005 < (inside * alarms).sum() + 1 - inside.sum() < 0.0015


def test_holm_keeps_the_family_where_raw_p_values_do_not():
    rng = np.random.default_rng(6)
    p_of = {
        (b, c): paired_binary_test(0, b, c, 100 - b - c).p_value
        for b in range(35)
        for c in range(35)
    }
    b, c = np.moveaxis(rng.multinomial(100, [0.1, 0.1, 0.8], size=(4000, 10))[..., :2], -1, 0)
    families = [
        [p_of[pair] for pair in zip(*row, strict=True)]
        for row in zip(b.tolist(), c.tolist(), strict=True)
    ]
    assert share(min(adjust(family)) < 0.05 for family in families) <= 0.05
    assert share(min(family) < 0.05 for family in families) > 0.25  # negative control


def votes_of(rng, n_items=50, n_raters=3):
    """Simulated: raters agree on an item more than by chance; no model is better."""
    leaning = rng.normal(0, 1, n_items)[:, None]
    felt = leaning + rng.normal(0, 1, (n_items, n_raters))
    return np.where(np.abs(felt) < 0.3, 0, np.sign(felt)).astype(int)


def test_items_keep_their_level_where_pooled_raters_do_not():
    rng = np.random.default_rng(7)
    tables = [votes_of(rng) for _ in range(6000)]
    assert 0.04 <= share(item_mean_test(table.tolist()).p_value < 0.05 for table in tables) <= 0.065

    def pooled(table):
        wins, losses = int((table > 0).sum()), int((table < 0).sum())
        return stats.binomtest(wins, wins + losses).pvalue < 0.05

    assert share(pooled(table) for table in tables[:1500]) > 0.10  # negative control


def latencies_of(rng, n=500):
    requests = rng.geometric(0.2, n)
    owners = np.repeat(np.arange(n), requests)
    return owners, np.exp(rng.normal(0, 0.5, n)[owners] + rng.normal(0, 0.5, len(owners)))


def test_p95_by_user_keeps_its_level_where_p95_by_request_does_not():
    rng = np.random.default_rng(8)
    pairs = [(latencies_of(rng), latencies_of(rng)) for _ in range(1200)]

    def rejects(test):
        return not test.ci_low <= 0 <= test.ci_high

    assert 0.035 <= share(rejects(quantile_by_user(*pair)) for pair in pairs) <= 0.07
    alone = [[(np.arange(len(values)), values) for _, values in pair] for pair in pairs]
    assert share(rejects(quantile_by_user(*pair)) for pair in alone) > 0.10  # negative control


def test_phases_keep_their_level_where_pooling_a_ramp_does_not():
    # week 1: 10% treated, rate .30; week 2: 50% treated, rate .32 in both arms
    rng, stratified, pooled = np.random.default_rng(9), [], []
    for a, b, c, d in rng.binomial(
        [9000, 1000, 5000, 5000], [0.30, 0.30, 0.32, 0.32], (1500, 4)
    ).tolist():
        weeks = [proportion_z_test(a, 9000, b, 1000), proportion_z_test(c, 5000, d, 5000)]
        stratified.append(combine_phases(weeks).p_value < 0.05)
        pooled.append(proportion_z_test(a + c, 14000, b + d, 6000).significant)
    assert 0.035 <= share(stratified) <= 0.065
    assert share(pooled) > 0.15  # negative control


def test_cuped_keeps_its_level():
    rng = np.random.default_rng(10)

    def arm():
        before = rng.normal(10, 3, 200)
        return before, 0.7 * before + rng.normal(0, 1, 200)

    assert 0.037 <= share(cuped_test(arm(), arm()).p_value < 0.05 for _ in range(2500)) <= 0.063


def test_ratio_intervals_cover_the_lift():
    rng, covered = np.random.default_rng(11), []
    for _ in range(2000):
        test = ratio_test(users_of(rng, 800, 0.3), users_of(rng, 800, 0.36))
        covered.append(test.lift_ci_low <= 0.2 <= test.lift_ci_high)
    assert 0.935 <= share(covered) <= 0.965


def test_the_confidence_sequence_covers_at_every_look_at_once():
    rng, n_max = np.random.default_rng(12), 4000
    outcomes = rng.normal(size=(1500, n_max))
    looks = np.arange(200, n_max + 1, 100)
    means = outcomes.cumsum(axis=1)[:, looks - 1] / looks
    half = [confidence_sequence(0.0, n**-0.5, int(n), n_max / 2)[1] for n in looks]
    assert (np.abs(means) <= half).all(axis=1).mean() >= 0.95
    assert (np.abs(means) <= 1.96 / looks**0.5).all(axis=1).mean() < 0.85  # negative control


def test_the_unpaired_test_would_miss_what_the_paired_test_finds():
    # n = 300, 10% discordant, +5 points: power .79 against .12
    rng = np.random.default_rng(13)
    tables = rng.multinomial(300, [0.55, 0.075, 0.025, 0.35], 1500).tolist()
    assert share(paired_binary_test(*table).p_value < 0.05 for table in tables) == pytest.approx(
        0.79, abs=0.04
    )
    unpaired = (proportion_z_test(a + c, 300, a + b, 300).significant for a, b, c, _ in tables)
    assert share(unpaired) < 0.2


def test_sums_of_a_million_users_reach_the_same_test():
    rng = np.random.default_rng(14)
    x, y = users_of(rng, 1_000_000)
    sums = RatioSums(
        n=len(x), sum_x=x.sum(), sum_y=y.sum(), sum_xx=x @ x, sum_xy=x @ y, sum_yy=y @ y
    )
    assert ratio_test_from_sums(sums, sums).se == pytest.approx(
        ratio_test((x, y), (x, y)).se, rel=1e-9
    )
