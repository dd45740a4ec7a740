import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

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
