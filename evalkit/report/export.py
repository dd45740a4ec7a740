"""What a study holds, for other tools: answers and A/B log as Parquet, closed rating rounds as preference pairs."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Literal

from evalkit.abtest.log import EventLog
from evalkit.abtest.source import is_duckdb, is_user_table, place_of
from evalkit.benchmark.benchmark import Benchmark
from evalkit.errors import DataError
from evalkit.files import JsonObject, to_json, to_line
from evalkit.human.ratings import rated_pairs
from evalkit.human.round import Round
from evalkit.records import RatedPair
from evalkit.study import Study
from evalkit.wording import visible, without_secrets_in

_SCORES = {"fine_tuned": 1.0, "base": -1.0}


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
        is_there = place.exists()
        is_theirs = place.is_dir() or is_user_table(place) or (is_there and is_duckdb(place))
    else:
        is_there, is_theirs = "://" in place or bool(os.environ.get(place)), False
    named = (said.log_user, said.log_variant, said.log_time)
    if is_there and (is_theirs or any(named) or said.log_exposures != "exposures"):
        told = "not exported, its tables are not the kit's own and can be read as they are"
        print(f"evalkit: {visible(said.event_log)}: {told}", file=sys.stderr)  # noqa: T201
    elif is_there:
        with closing(EventLog(place, only_read=True)) as log:
            return list(log.export(folder))
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


def write_dpo(
    pairs: Iterable[RatedPair], path: str | Path, *, style: Literal["trl", "openai"] = "trl"
) -> int:
    """Writes preference pairs as JSONL, the answer most votes prefer as the chosen one; ties are left out.

    Args:
        pairs: From `evalkit.human.ratings.rated_pairs`.
        path: The file to write.
        style: "trl" for `prompt`, `chosen`, `rejected`; "openai" for `input`, `preferred_output`, `non_preferred_output`.

    Returns:
        The number of pairs written.
    """
    rows = [_dpo_row(pair, style) for pair in pairs if _mean_score(pair)]
    lines = (to_line(without_secrets_in(row)) + b"\n" for row in rows)
    Path(path).write_bytes(b"".join(lines))
    return len(rows)


def write_llm_comparator(
    pairs: Iterable[RatedPair], path: str | Path, *, models: Mapping[str, str]
) -> int:
    """Writes the JSON that LLM Comparator reads; its A is the fine-tuned model, so a positive score is good news here too.

    Args:
        pairs: From `evalkit.human.ratings.rated_pairs`.
        path: The file to write.
        models: Names, `{"base": ..., "fine_tuned": ...}`.

    Returns:
        The number of pairs written.
    """
    pairs = list(pairs)
    simulated = ", simulated raters" if any(pair.simulated for pair in pairs) else ""
    schema = [{"name": "example_id", "type": "string"}, {"name": "simulated", "type": "category"}]
    named = [models.get("fine_tuned", "fine-tuned"), models.get("base", "base")]
    record = {
        "metadata": {"source_path": f"evalkit{simulated}", "custom_fields_schema": schema},
        "models": [{"name": name} for name in named],
        "examples": [_example(pair) for pair in pairs],
    }
    Path(path).write_bytes(to_json(without_secrets_in(record)))
    return len(pairs)


def _mean_score(pair: RatedPair) -> float:
    scores = [_SCORES.get(vote["label"], 0.0) for vote in pair.votes]
    return sum(scores) / len(scores) if scores else 0.0


def _dpo_row(pair: RatedPair, style: str) -> JsonObject:
    prompt = [*pair.messages] or [{"role": "user", "content": pair.input}]
    answers = [[{"role": "assistant", "content": text}] for text in (pair.fine_tuned, pair.base)]
    chosen, rejected = answers if _mean_score(pair) > 0 else reversed(answers)
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    if style == "openai":
        outputs = {"preferred_output": chosen, "non_preferred_output": rejected}
        row = {"input": {"messages": prompt}, **outputs}
    return row | ({"simulated": True} if pair.simulated else {})


def _example(pair: RatedPair) -> JsonObject:
    scores = [
        {
            "is_flipped": not vote["fine_tuned_left"],
            "score": _SCORES.get(vote["label"], 0.0),
            "rationale": "; ".join(filter(None, [*vote["reasons"], vote["note"]])),
        }
        for vote in pair.votes
    ]
    simulated = "yes" if pair.simulated else "no"
    return {
        "input_text": pair.input,
        "tags": list(pair.slices.values()),
        "output_text_a": pair.fine_tuned,
        "output_text_b": pair.base,
        "score": _mean_score(pair),
        "individual_rater_scores": scores,
        "custom_fields": {"example_id": pair.example_id, "simulated": simulated},
    }
