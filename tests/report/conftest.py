import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).with_name("notebooks")


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """A project with a tiny study and the named fixture notebooks."""

    def made(*books: str, study: str = "study: tiny\ntitle: A tiny study\n") -> Path:
        (tmp_path / "data/tiny").mkdir(parents=True)
        (tmp_path / "notebooks").mkdir()
        (tmp_path / "data/tiny/study.yaml").write_text(study)
        for book in books:
            shutil.copy(NOTEBOOKS / f"{book}.ipynb", tmp_path / "notebooks")
        return tmp_path

    return made
