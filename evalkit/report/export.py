"""What a study holds, for other tools: answers and A/B log as Parquet, closed rating rounds as preference pairs."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from evalkit.abtest.log import EventLog
from evalkit.abtest.source import is_duckdb, is_user_table, place_of
from evalkit.benchmark.benchmark import Benchmark
from evalkit.errors import DataError
from evalkit.human.ratings import rated_pairs
from evalkit.human.round import Round
from evalkit.interop.votes import write_dpo, write_llm_comparator
from evalkit.study import Study
from evalkit.wording import visible


def export(name: str, folder: Path, *, root: Path | None = None) -> list[Path]:
    """Writes all that is there into a folder and returns the files; a failure leaves the folder as it was.

    Raises:
        DataError: The study has neither both models' answers, a log nor a closed round, or one of them is damaged; or the
            folder is a file.
    """
    study = Study.open(name, root=root)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; name a folder with --to")
    nearest = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())
    with tempfile.TemporaryDirectory(prefix=".evalkit-export-", dir=nearest) as made_in:
        made = [one for write in (_answers, _log, _votes) for one in write(study, Path(made_in))]
        if not made:
            raise DataError(
                f"{study.folder}: holds neither an A/B log nor a closed rating round nor both models' answers, so there is "
                f"nothing to export; close a round with evalkit rate {name} --lock, route users through "
                f"evalkit.run_ab_request, or ask both models with evalkit run {name}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.move(one, folder / one.name)) for one in made]


def _answers(study: Study, folder: Path) -> list[Path]:
    benchmark = Benchmark(study=study)
    if not all(path.exists() for path in benchmark.journals.values()):
        return []
    benchmark.compare().to_frame().to_parquet(path := folder / "answers.parquet", index=False)
    return [path]


def _log(study: Study, folder: Path) -> list[Path]:
    said, place = study.settings, place_of(study, study.settings.event_log)
    if isinstance(place, Path):
        if place.is_dir() or is_user_table(place):
            return _left(str(place), "its Parquet or CSV files can be read as they are")
        if not place.is_file():
            return []
    elif "://" not in place and not os.environ.get(place):
        return []
    renamed = (
        said.log_user or said.log_variant or said.log_time or said.log_exposures != "exposures"
    )
    if renamed or (isinstance(place, Path) and is_duckdb(place)):
        return _left(said.event_log, "its tables are those of a warehouse and not the kit's own")
    with closing(EventLog(place, only_read=True)) as log:
        return list(log.export(folder))


def _left(where: str, why: str) -> list[Path]:
    print(f"evalkit: {visible(where)}: not exported, {why}", file=sys.stderr)  # noqa: T201
    return []


def _votes(study: Study, folder: Path) -> list[Path]:
    made = []
    for place in sorted((study.folder / "ratings").glob("*/lock.json")):
        round_ = Round.open(place.parent)
        pairs, name = rated_pairs(round_), place.parent.name
        made += [folder / f"{name}.dpo.jsonl", folder / f"{name}.llm_comparator.json"]
        write_dpo(pairs, made[-2])
        write_llm_comparator(pairs, made[-1], models=round_.key().models)
    return made
