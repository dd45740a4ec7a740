"""Every result against a model that a study's own folder knows of, so that nothing in `reports/` has to be kept for it."""

from __future__ import annotations

from pathlib import Path

from evalkit.abtest import chapter
from evalkit.decision import history
from evalkit.human import preference
from evalkit.records import Against
from evalkit.study import Study


def results_against(home: Study, folder: Path) -> tuple[Against, ...]:
    """From the ledger of looks, the locked rating rounds and the history of runs in `data/<study>`.

    Args:
        home: The study.
        folder: The folder of the run that decides now.
    """
    now = history.row_now(folder)
    return (
        *chapter.results_against(home),
        *preference.results_against(home, alpha=home.settings.alpha),
        *history.results_against(history.read(home), now),
    )
