import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.decision import Decision, decide
from evalkit.evidence import Evidence
from evalkit.records import Layer

NOTEBOOKS = Path(__file__).with_name("notebooks")


def _build(root: Path, *books: str, study: str = "study: tiny\ntitle: A tiny study\n") -> Path:
    (root / "data/tiny").mkdir(parents=True)
    (root / "notebooks").mkdir()
    (root / "data/tiny/study.yaml").write_text(study)
    for book in books:
        shutil.copy(NOTEBOOKS / f"{book}.ipynb", root / "notebooks")
    return root


@pytest.fixture(scope="session")
def build() -> Callable[..., Path]:
    """Fills a folder with a project: a tiny study and the named fixture notebooks."""
    return _build


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """The same in a folder of its own."""

    def made(*books: str, **options: str) -> Path:
        return _build(tmp_path, *books, **options)

    return made


@pytest.fixture
def decided() -> Callable[[str], Decision]:
    """A decision that comes to a verdict, from a benchmark and people that say so."""

    def made(verdict: str) -> Decision:
        said = {"ship": "better", "don't ship": "worse"}.get(verdict)
        layers: tuple[Layer, ...] = ("benchmark", "human") if said else ()
        decision = decide({one: evidence(one, str(said)) for one in layers}, study="tiny")
        assert decision.verdict == verdict
        return decision

    return made


def evidence(layer: Layer, verdict: str) -> Evidence:
    """A layer whose own test says so."""
    effect = 0.1 if verdict == "better" else -0.1
    level = effect + (0.5 if layer == "human" else 0.0)
    primary = {"verdict": verdict, "n": 300, "estimate": level, "alpha": 0.05, "p_value": 0.01}
    return Evidence.of(
        {
            "layer": layer,
            "study": "tiny",
            "made_at": "2026-11-28",
            "models": {"base": "old", "fine_tuned": "new"},
            "bound_to": {"test_set": "t", "base": "b", "fine_tuned": "f"},
            "simulated": False,
            "metric": "exact match" if layer == "benchmark" else "win rate",
            "unit": "items",
            "primary": primary | {"ci_low": level - 0.05, "ci_high": level + 0.05},
            "details": {"noise_floor": {"n": 1}, "metrics": {}},
        }
    )
