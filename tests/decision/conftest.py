from collections.abc import Callable
from typing import Any

import pytest

from evalkit.evidence import Evidence

HASHES = {"test_set": "t1", "base": "b1", "fine_tuned": "f1"}
EFFECTS = {
    "better": (0.19, 0.14, 0.25),
    "worse": (-0.10, -0.15, -0.05),
    "no difference shown": (0.02, -0.03, 0.07),
}
METRICS = {"benchmark": "exact match", "human": "win rate", "ab_test": "accepted"}
UNITS = {"benchmark": "examples", "human": "items", "ab_test": "users"}


def make(layer: Any, verdict: str = "better", **changes: Any) -> Evidence:
    shift = 0.5 if layer == "human" else 0.0
    primary: dict[str, Any] = {"verdict": verdict, "n": 300}
    if verdict in EFFECTS:
        estimate, low, high = (value + shift for value in EFFECTS[verdict])
        primary |= {
            "estimate": estimate,
            "ci_low": low,
            "ci_high": high,
            "alpha": 0.05,
            "p_value": 0.01,
        }
    details = {"noise_floor": {"flip_rate": 0.0}} if layer == "benchmark" else {}
    fields: dict[str, Any] = {
        "layer": layer,
        "study": "tiny",
        "made_at": "2026-11-24T00:00:00+00:00",
        "models": {"base": "old", "fine_tuned": "new"},
        "bound_to": HASHES,
        "simulated": False,
        "metric": METRICS[layer],
        "unit": UNITS[layer],
        "primary": primary,
        "details": details,
    }
    return Evidence.of(fields | changes)


@pytest.fixture
def evidence() -> Callable[..., Evidence]:
    return make
