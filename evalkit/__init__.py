"""Is my fine-tuned model really better? Three layers of evidence, one decision."""

from importlib import import_module
from typing import Any

_HOMES = {
    "Study": "evalkit.workbench",
    "EvalResult": "evalkit.records",
    "run_automated_eval": "evalkit.answers.runner",
    "run_automated_eval_async": "evalkit.answers.runner",
    "check_format": "evalkit.answers.scoring",
    "compute_metrics": "evalkit.answers.metrics",
    "compare_models": "evalkit.benchmark.comparison",
    "compare_files": "evalkit.benchmark.comparison",
    "read_log": "evalkit.interop.logs",
    "prepare_human_eval_batch": "evalkit.human.batch",
    "ABTestConfig": "evalkit.abtest.assignment",
    "ABTestResult": "evalkit.abtest.routing",
    "assign_variant": "evalkit.abtest.assignment",
    "run_ab_request": "evalkit.abtest.routing",
    "run_ab_request_async": "evalkit.abtest.routing",
    "proportion_z_test": "evalkit.stats",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll] - filled lazily below
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evalkit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
