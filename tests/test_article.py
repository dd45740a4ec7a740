"""The article's names, parameters and fields: each must exist, with the same meaning and defaults."""

import inspect
import json

import pytest

import evalkit
from evalkit import stats

RESULTS = [
    evalkit.EvalResult(0, "note a", "A00.0: Cholera", "A00.0: Cholera", True, True),
    evalkit.EvalResult(1, "note b", "B00.0: Herpes", "something else", False, False),
    evalkit.EvalResult(2, "note c", "C00.0: Lip", "C00.1: Lip", False, True),
]
BETTER = [
    evalkit.EvalResult(r.example_id, r.input_text, r.expected, r.expected, True, True)
    for r in RESULTS
]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("run_automated_eval", ["model", "test_file", "system_prompt"]),
        ("check_format", ["output"]),
        ("compute_metrics", ["results"]),
        ("compare_models", ["base_results", "ft_results"]),
        ("prepare_human_eval_batch", ["base_results", "ft_results", "sample_size"]),
        ("assign_variant", ["user_id", "config"]),
        ("run_ab_request", ["user_id", "messages", "config", "client"]),
        ("proportion_z_test", ["successes_a", "total_a", "successes_b", "total_b"]),
    ],
)
def test_the_articles_parameters_come_first_and_all_more_is_keyword_only(name, parameters):
    signature = inspect.signature(getattr(evalkit, name))
    positional = [
        p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert positional == parameters


def test_the_articles_defaults():
    def default(name, parameter):
        return inspect.signature(getattr(evalkit, name)).parameters[parameter].default

    assert default("run_automated_eval", "system_prompt") == ""
    assert default("run_automated_eval", "temperature") == 0.0
    assert default("run_automated_eval", "max_tokens") == 1024
    assert default("prepare_human_eval_batch", "sample_size") == 50
    config = evalkit.ABTestConfig("exp", "base", "tuned")
    assert (config.traffic_split, config.min_samples) == (0.1, 1000)


def test_the_articles_three_dataclasses_take_its_fields_in_its_order():
    config = evalkit.ABTestConfig("exp", "base", "tuned", 0.5, 2000)
    assert (config.experiment_name, config.control_model, config.treatment_model) == (
        "exp",
        "base",
        "tuned",
    )
    result = evalkit.ABTestResult("base", "control", "u1", "hello", 12.5, 1.0)
    assert (result.model, result.variant, result.user_id, result.response) == (
        "base",
        "control",
        "u1",
        "hello",
    )
    assert (result.latency_ms, result.timestamp) == (12.5, 1.0)
    assert (
        RESULTS[0].example_id,
        RESULTS[0].input_text,
        RESULTS[0].exact_match,
        RESULTS[0].format_correct,
    ) == (
        0,
        "note a",
        True,
        True,
    )


@pytest.mark.parametrize(
    ("output", "correct"),
    [
        ("A00.0: Cholera", True),
        ("A00.0: Cholera\nB00.12: Herpes", True),
        ("I10: Hypertension", False),
        ("A00.0", False),
        ("", False),
    ],
)
def test_check_format_is_the_articles(output, correct):
    assert evalkit.check_format(output) is correct


def test_compute_metrics_has_the_articles_fields():
    metrics = evalkit.compute_metrics(RESULTS)
    assert metrics.total_examples == 3
    assert metrics.exact_match_rate == pytest.approx(1 / 3)
    assert metrics.format_accuracy == pytest.approx(2 / 3)
    assert 0 < metrics.min_similarity < metrics.avg_similarity < 1


def test_no_results_is_a_result():
    metrics = evalkit.compute_metrics([])
    assert metrics.total_examples == 0
    assert metrics.exact_match_rate is None


def test_compare_models_has_the_articles_fields_and_joins_on_id():
    comparison = evalkit.compare_models(RESULTS, list(reversed(BETTER)))
    assert comparison.exact_match_improvement == pytest.approx(2 / 3)
    assert comparison.format_improvement == pytest.approx(1 / 3)
    assert comparison.similarity_improvement > 0
    assert comparison.base.exact_match_rate == pytest.approx(1 / 3)
    assert comparison.fine_tuned.exact_match_rate == 1


def test_a_batch_has_the_articles_fields_and_hides_which_is_which():
    batch = evalkit.prepare_human_eval_batch(RESULTS, BETTER, sample_size=2, seed=1)
    items = list(batch.items) if not isinstance(batch, list) else batch
    for item in items:
        read = (
            item.__getitem__
            if hasattr(item, "__getitem__")
            else lambda name, item=item: getattr(item, name)
        )
        assert {read("response_a"), read("response_b")}
        assert read("input").startswith("note")
    assert "base" not in json.dumps([str(item) for item in items])


@pytest.mark.parametrize("split", [0.0, 0.1, 0.5, 1.0])
def test_the_articles_hash_can_be_reproduced(split):
    import hashlib

    config = evalkit.ABTestConfig("exp", "base", "tuned", split, hash="md5-1000")
    for user in range(200):
        bucket = int(hashlib.md5(f"exp:u{user}".encode()).hexdigest(), 16) % 1000
        assert evalkit.assign_variant(f"u{user}", config) == (
            "treatment" if bucket / 1000 < split else "control"
        )


def test_the_articles_z_test_gives_numbers():
    # pooled = 270/2000 = 0.135; se = sqrt(.135 * .865 * 2/1000) = 0.0152824; z = 0.03 / se = 1.96304
    test = evalkit.proportion_z_test(120, 1000, 150, 1000)
    assert test.control_rate == 0.12
    assert test.treatment_rate == 0.15
    assert test.lift == pytest.approx(0.25)
    assert test.z_score == pytest.approx(1.96304, abs=1e-5)
    assert test.p_value == pytest.approx(0.04964, abs=1e-5)
    assert test.significant is True


def test_every_name_of_the_statistics_table_exists():
    names = (
        "rate_interval proportion_z_test paired_binary_test paired_mean_test win_rate position_bias krippendorff_alpha "
        "sample_ratio_test ratio_test mean_test noninferiority_test examples_needed detectable_difference users_needed "
        "users_needed_mean adjust obrien_fleming_bounds confidence_sequence"
    )
    assert [name for name in names.split() if not callable(getattr(stats, name, None))] == []


@pytest.mark.parametrize(
    "result",
    [
        lambda: stats.rate_interval(3, 10),
        lambda: stats.proportion_z_test(120, 1000, 150, 1000),
        lambda: stats.paired_binary_test(10, 8, 2, 5),
        lambda: stats.paired_mean_test([0.1, 0.2, -0.1, 0.4]),
        lambda: stats.win_rate(30, 20, 10),
        lambda: stats.position_bias(30, 20),
        lambda: stats.krippendorff_alpha([[1, 2, 1, None], [1, 2, 2, 2]]),
        lambda: stats.sample_ratio_test([500, 480], [0.5, 0.5]),
        lambda: stats.ratio_test(([2, 3, 1, 4], [1, 1, 0, 2]), ([2, 2, 1, 5], [1, 2, 1, 4])),
        lambda: stats.mean_test([1.0, 2.0, 3.0], [2.0, 3.0, 5.0]),
        lambda: stats.noninferiority_test(stats.paired_binary_test(90, 4, 4, 2), 0.05),
    ],
)
def test_every_result_has_the_common_fields_and_survives_json(result):
    result = result()
    fields = {
        "estimate",
        "n",
        "ci_low",
        "ci_high",
        "alpha",
        "p_value",
        "method",
        "notes",
        "verdict",
    }
    assert fields <= {name for name in dir(result) if not name.startswith("_")}
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["verdict"] == result.verdict
    assert str(result)
    assert "\n" not in str(result)
    assert "<table" in result._repr_html_()
