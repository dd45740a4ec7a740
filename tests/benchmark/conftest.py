import pytest

from evalkit.records import EvalResult


@pytest.fixture
def answers():
    """Results of one model: for each example whether it is right; more by keyword, a list where it differs by example."""

    def made(right, **more):
        results = []
        for i, is_right in enumerate(right):
            extra = {
                name: value[i] if isinstance(value, list) else value for name, value in more.items()
            }
            ok = bool(is_right) and extra.get("outcome", "ok") == "ok"
            results.append(
                EvalResult(
                    f"e{i}", f"question {i}", "yes", "yes" if is_right else "no", ok, True, **extra
                )
            )
        return results

    return made


@pytest.fixture
def cells(answers):
    """Two models' results with the four cells in this order: both right, fixed, regressed, both wrong."""

    def made(both_right, fixed, regressed, both_wrong, **more):
        base = [1] * both_right + [0] * fixed + [1] * regressed + [0] * both_wrong
        tuned = [1] * both_right + [1] * fixed + [0] * regressed + [0] * both_wrong
        return answers(base, **more), answers(tuned, **more)

    return made
