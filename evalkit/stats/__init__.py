"""Pure statistics: each function answers one question and returns plain numbers with an interval.

Nothing heavy is imported before the first call. `docs/statistics.md` says which function answers which question.
"""

from importlib import import_module
from typing import Any

_ROOMS = {
    "paired": "MOST_VALUES PairedBinaryTest PairedMeanTest RegressionRow RegressionTable clustered_fit folded gee_odds_table "
    "linear_probability_table paired_binary_test paired_mean_test tango_interval",
    "power": "SampleSize chance_to_find chance_to_find_mean days_needed detectable_difference detectable_margin "
    "examples_needed examples_to_settle ratings_needed ratings_needed_no_worse sign_test_power "
    "user_design_effect user_design_effect_from_sums users_needed "
    "users_needed_mean users_power",
    "proportions": "ProportionTest RateInterval RuleTest SampleRatioTest adjust less_than_others proportion_z_test "
    "rate_interval rule_test sample_ratio_test tarone_level",
    "result": "NonInferiorityTest Result Verdict against_margin keeps_margin noninferiority_test",
    "sequential": "confidence_sequence crossing_chance extension_levels obrien_fleming_bounds single_look_power spent_alpha",
    "sums": "MeanSums RatioSums ratio_sums",
    "users": "CombinedTest MeanTest QuantileInterval QuantileTest RatioTest combine_phases cuped_test cuped_test_from_sums "
    "mean_test mean_test_from_sums quantile_by_user quantile_interval quantile_levels quantile_test ratio_test "
    "ratio_test_from_sums",
    "votes": "KrippendorffAlpha LengthAdjustedPreference PositionBias RaterSampleTest WinRate item_mean_test "
    "krippendorff_alpha length_adjusted_preference position_bias rater_sample_test win_rate",
}
_HOMES = {name: f"evalkit.stats.{room}" for room, names in _ROOMS.items() for name in names.split()}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll] - filled lazily below


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evalkit.stats' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
