"""Two files, one page: the notebook `compare.ipynb` on what other tools have asked; no study, no call of a model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from evalkit import wording
from evalkit.benchmark.comparison import compare_files
from evalkit.errors import ModelError
from evalkit.interop import Log, read_log
from evalkit.report import manifest
from evalkit.report.notebook import execute
from evalkit.report.page import write_page
from evalkit.settings import Value
from evalkit.study import Study, new_run_name, project_root

NAME = "compare"


def compare(
    base: Path, fine_tuned: Path, options: Mapping[str, str | float], *, root: Path | None = None
) -> tuple[Path, str]:
    """Compares two files and writes the page below `reports/compare`.

    Args:
        base: The base model's file.
        fine_tuned: The fine-tuned model's.
        options: Parameters of the notebook by name: metric, test_file, base_arm, fine_tuned_arm, filter_name, columns, margin.
        root: The project's folder; found from here by default.

    Returns:
        The page, and the comparison in a sentence.

    Raises:
        DataError: A file cannot be read; before anything is written.
        DesignError: Something could be meant in several ways, and was not named.
    """
    root = root or project_root()
    logs = _logs(base, fine_tuned, options)
    metric, margin = str(options.get("metric") or ""), float(options.get("margin") or 0) or None
    sentence = str(compare_files(*logs, metric=metric, margin=margin))
    study = Study(name=NAME, root=root, run=new_run_name())
    folder, book = study.run_folder(), root / "notebooks" / f"{NAME}.ipynb"
    paths = {
        name: str(Path(str(path)).resolve())
        for name, path in options.items()
        if name == "test_file" and path
    }
    values: dict[str, Value] = {
        **options,
        **paths,
        "base": str(base.resolve()),
        "fine_tuned": str(fine_tuned.resolve()),
    }
    values = {"test_file": "", **values, "run": study.run}
    began = time.monotonic()
    made = execute(book, folder / book.name, values, folder=root)
    manifest.write(
        study,
        folder,
        {book.stem: made},
        books=[book],
        parameters={**values, "title": f"{fine_tuned.name} against {base.name}"},
        skipped=(),
        headline=wording.visible(sentence),
        deck=wording.visible(". ".join([*map(str, logs), "No model was called."])),
        seconds=time.monotonic() - began,
    )
    page = write_page(folder)
    if made.error:
        raise ModelError(f"{made.error}; the page so far: {page}")
    return page, sentence


def _logs(base: Path, fine_tuned: Path, options: Mapping[str, str | float]) -> tuple[Log, Log]:
    test_file = str(options.get("test_file") or "") or None
    old, new = (
        read_log(
            path,
            arm=str(options.get(f"{role}_arm") or ""),
            filter_name=str(options.get("filter_name") or ""),
            columns=str(options.get("columns") or ""),
            test_file=test_file,
        )
        for role, path in (("base", base), ("fine_tuned", fine_tuned))
    )
    return old, new
