"""A study's rating round: drawn when it is not there yet, found again by what it was made from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from evalkit.errors import DataError, DesignError, need_one_of
from evalkit.files import JsonObject, from_json, read_text
from evalkit.human.batch import answers_seal, n_differing, prepare_human_eval_batch
from evalkit.human.rounds import Lock, Progress, Round, round_folder
from evalkit.records import Brief, EvalResult
from evalkit.settings import named
from evalkit.study import Study

if TYPE_CHECKING:
    import pandas as pd

NotDrawn = Literal["unanswered", "nobody named"]
NOT_DRAWN: Mapping[NotDrawn, str] = {
    "unanswered": "No round was drawn: its votes would be on answers that change when the rest comes in. "
    "Have them answered first (notebook 01 with live: true asks only what is missing), or set allow_incomplete: true in "
    "study.yaml to have these rated as they are.",
    "nobody named": "No round was drawn: nobody is named to rate. Name the raters in study.yaml (codes, such as "
    "raters: anna,ben) with the sample_size and the rubric you want, then run notebook 03: a round is drawn once.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Otherwise:
    """Settings that a study now has otherwise than the round it drew before, which stays as it is.

    Attributes:
        raters: The raters named now; () when they are the round's.
        n_pairs: The pairs it would draw now; None when they are as many.
        rubric: Whether question, guidance or reasons are others.
    """

    raters: tuple[str, ...] = ()
    n_pairs: int | None = None
    rubric: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StudyRound(Brief):
    """The round a study has, or none yet, and the answers it would have rated.

    Attributes:
        round: None when it was not drawn: answers are missing, or nobody is named to rate.
        bound_to: Hashes of the study's present test set and answers.
        otherwise: What the study says otherwise than the round.
        not_drawn: Why there is no round: answers are "unanswered", or "nobody named" to rate.
    """

    round: Round | None
    bound_to: Mapping[str, str]
    otherwise: Otherwise = field(default_factory=Otherwise)
    not_drawn: NotDrawn = "unanswered"

    @property
    def simulated(self) -> bool:
        """Whether its raters are simulated."""
        return self.round is not None and self.round.batch.simulated

    @property
    def current(self) -> bool:
        """Whether it was made from the present answers."""
        return self.round is not None and self.round.batch.made_from(self.bound_to)

    @property
    def n_pairs(self) -> int:
        """Pairs shown to raters; 0 when there is no round."""
        return len(self.round.batch) if self.round else 0

    def progress(self) -> tuple[Progress, ...]:
        """How far every rater is; nobody when there is no round."""
        return self.round.progress() if self.round else ()

    def to_frame(self, by: Literal["rater", "pair"] = "rater") -> pd.DataFrame:
        """How far every rater is, one row each; or the pairs as raters see them, blind.

        Args:
            by: "rater" for rater, done and total (votes, repeats included) and last_at (UTC); "pair" for item_id,
                example_id, input, response_a and response_b, then the slice fields.
        """
        from evalkit.human import ratings

        need_one_of(("rater", "pair"), "by", by)
        if by == "rater":
            return ratings.progress_frame(self.progress())
        return ratings.pairs_frame(self.round.batch.items if self.round else ())

    def lock(self, *, unfinished: bool = False) -> Lock:
        """Closes the round for good; see `Round.lock`.

        Raises:
            DesignError: There is no round, nobody has voted yet, or somebody has not finished.
        """
        if self.round is None:
            raise DesignError(NOT_DRAWN[self.not_drawn])
        return self.round.lock(unfinished=unfinished)


def open_round(
    study: Study,
    base: Sequence[EvalResult],
    fine_tuned: Sequence[EvalResult],
    *,
    bound_to: Mapping[str, str],
    models: Mapping[str, str],
    stratify_by: str = "",
    n_unanswered: int = 0,
) -> StudyRound:
    """The study's round by its settings, made when it is not there yet; an existing one is never touched.

    None is drawn for nobody: who rates is the study's to say. And none from answers that are not complete: it would be bound
    to answers that change when the rest comes in, unless the study says `allow_incomplete`. Simulated raters are taken only
    when no real ones are named; their round has a folder of its own, and without a seed is the same on every machine.

    Args:
        study: Where it lives.
        base: The base model's answers.
        fine_tuned: The fine-tuned model's.
        bound_to: Hashes of what they were made from.
        models: Their names.
        stratify_by: A slice to draw from in proportion, "" for none.
        n_unanswered: Answers of either model that are still missing.

    Raises:
        DesignError: The name belongs to a round of people and simulated raters are asked for.
    """
    said, people = study.settings, round_folder(study, study.settings.rating_round)
    n_simulated = 0 if said.raters.strip() else said.simulate_raters
    if n_simulated and (people / "batch.json").exists():
        raise DesignError(
            f"{people}: a round of people; set simulate_raters to 0 or name another rating_round"
        )
    folder = simulated_folder(study, bound_to) if n_simulated else people
    codes = tuple(f"simulated-{i + 1}" for i in range(n_simulated)) or named(said.raters)
    is_there = (folder / "batch.json").exists()
    if not is_there and (not codes or (n_unanswered and not said.allow_incomplete)):
        why: NotDrawn = "unanswered" if codes else "nobody named"
        return StudyRound(round=None, bound_to=bound_to, not_drawn=why)
    rubric = read_rubric(study.named_file(said.rubric_file))
    if not is_there:
        drawn = int(answers_seal(bound_to)[:12], 16) if n_simulated else None
        try:
            prepare_human_eval_batch(
                base,
                fine_tuned,
                said.sample_size,
                seed=said.rating_seed or drawn,
                raters=codes,
                stratify_by=stratify_by or None,
                repeat_share=said.repeat_share,
                gold=read_gold(study.path(said.gold_file)) if said.gold_file else (),
                study=study.name,
                round=folder.name,
                models=models,
                bound_to=bound_to,
                simulated=n_simulated > 0,
                folder=folder,
                **rubric,
            )
        except DesignError:
            if not (folder / "batch.json").exists():  # else another run has just made it
                raise
    found = Round.open(folder)
    batch, n_pairs = found.batch, min(said.sample_size, n_differing(base, fine_tuned))
    otherwise = Otherwise(
        raters=() if batch.simulated or set(batch.raters) == set(codes) else codes,
        n_pairs=None if len(batch) == n_pairs else n_pairs,
        rubric=any([*getattr(batch, name)] != [*value] for name, value in rubric.items()),
    )
    return StudyRound(round=found, bound_to=bound_to, otherwise=otherwise)


def find_round(study: Study, bound_to: Mapping[str, str]) -> Round | None:
    """The round of people of the study's `rating_round`, else the simulated one of these very answers, else None."""
    folders = (round_folder(study, study.settings.rating_round), simulated_folder(study, bound_to))
    return next(
        (Round.open(folder) for folder in folders if (folder / "batch.json").exists()), None
    )


def simulated_folder(study: Study, bound_to: Mapping[str, str]) -> Path:
    """Where simulated raters work: apart from people, and anew for other answers."""
    name = study.settings.rating_round[:40]
    return round_folder(study, f"{name}-simulated-{answers_seal(bound_to)[:8]}")


def read_rubric(path: Path | None) -> JsonObject:
    """A study's own `question`, `rubric` and `reasons`, from one text file.

    The question is the first line, when it starts with "#"; the reasons are the list under a heading "Reasons", each
    item's text up to a colon. What a file does not say keeps its default.

    Raises:
        DataError: No such file, or no text in UTF-8.
    """
    if path is None:
        return {}
    remedy = "write it as plain text, or leave rubric_file empty"
    text = read_text(path, said="cannot read the rubric", remedy=remedy).strip()
    first, _, rest = text.partition("\n")
    said: JsonObject = {"rubric": text}
    if first.startswith("#"):
        said = {"question": first.lstrip("# "), "rubric": rest.strip()}
    part = re.search(
        r"^#+ *reasons *\n(.*?)(?=^#|\Z)", text, re.IGNORECASE | re.MULTILINE | re.DOTALL
    )
    reasons = re.findall(r"^[-*] *([^:\n]+)", part[1], re.MULTILINE) if part else []
    if reasons:
        said["reasons"] = [one.strip().replace("_", " ") for one in reasons]
    return said


def in_jupyter(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody sits in front of this notebook, so that a rater makes sense."""
    return bool(environment.get("JPY_SESSION_NAME") or environment.get("VSCODE_PID"))


def read_gold(path: Path) -> list[dict[str, str]]:
    """Pairs with a known winner, one JSON object a line.

    Raises:
        DataError: A line is not such a pair.
    """
    pairs = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                pair = from_json(line)
                pairs.append({name: str(pair[name]) for name in ("id", "input", "better", "worse")})
            except (ValueError, KeyError, TypeError) as why:
                raise DataError(
                    f"{path}:{number}: not a gold pair ({why}); need id, input, better and worse"
                ) from why
    return pairs
