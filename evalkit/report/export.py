"""What a study holds, for other tools: answers and A/B log as Parquet, closed rating rounds as preference pairs."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from evalkit.errors import DataError
from evalkit.marks import visible
from evalkit.study import Study


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
        made = [
            *_answers(study, Path(made_in)),
            *_log(study, Path(made_in)),
            *_votes(study, Path(made_in)),
        ]
        if not made:
            raise DataError(
                f"{study.folder}: holds neither an A/B log nor a closed rating round nor both models' answers, so there is "
                f"nothing to export; close a round with evalkit rate {name} --lock, route users through "
                f"evalkit.run_ab_request, or ask both models with evalkit run {name}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.move(one, folder / one.name)) for one in made]


def _answers(study: Study, folder: Path) -> list[Path]:
    from evalkit.benchmark.bench import Bench

    bench = Bench(study=study)
    if not all(path.exists() for path in bench.journals.values()):
        return []
    bench.compare().to_frame().to_parquet(path := folder / "answers.parquet", index=False)
    return [path]


def _log(study: Study, folder: Path) -> list[Path]:
    from evalkit.abtest.log import EventLog, place_of
    from evalkit.abtest.source import is_duckdb, is_user_table

    place = place_of(study, study.settings.event_log)
    if isinstance(place, str) and "://" not in place and not os.environ.get(place):
        return []
    if isinstance(place, Path) and (place.is_dir() or is_user_table(place)):
        told = "not exported, its Parquet or CSV files can be read as they are"
        print(f"evalkit: {visible(str(place))}: {told}", file=sys.stderr)  # noqa: T201
    if isinstance(place, Path) and (not place.is_file() or is_user_table(place)):
        return []
    said = study.settings
    renamed = (
        said.log_user or said.log_variant or said.log_time or said.log_exposures != "exposures"
    )
    if renamed or (isinstance(place, Path) and is_duckdb(place)):
        told = "not exported, its tables are those of a warehouse and not the kit's own"
        print(f"evalkit: {visible(said.event_log)}: {told}", file=sys.stderr)  # noqa: T201
        return []
    log = EventLog(place, only_read=True)
    try:
        return list(log.export(folder))
    finally:
        log.close()


def _votes(study: Study, folder: Path) -> list[Path]:
    from evalkit.human.ratings import rated_pairs
    from evalkit.human.rounds import Round
    from evalkit.interop.votes import write_dpo, write_llm_comparator

    made = []
    for place in sorted((study.folder / "ratings").glob("*/lock.json")):
        round_ = Round.open(place.parent)
        pairs = rated_pairs(round_)
        dpo, comparator = (
            folder / f"{place.parent.name}.{kind}" for kind in ("dpo.jsonl", "llm_comparator.json")
        )
        write_dpo(pairs, dpo)
        write_llm_comparator(pairs, comparator, models=round_.key().models)
        made += [dpo, comparator]
    return made
