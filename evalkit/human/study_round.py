"""A study's rating round: drawn when it is not there yet, found again by what it was made from."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evalkit.errors import DataError, DesignError
from evalkit.files import from_json, read_text
from evalkit.human import draw
from evalkit.human.batch import answers_seal, made_from, prepare_human_eval_batch
from evalkit.human.rounds import Progress, Round, round_folder
from evalkit.records import Brief, EvalResult
from evalkit.settings import named
from evalkit.study import Study

if TYPE_CHECKING:
    import pandas as pd

NO_RATER = "Nobody sits in front of this run, or there is no round yet, so no rater is shown."
NOT_DRAWN = (
    "No round was drawn: its votes would be on answers that change when the rest comes in. "
    "Have them answered first (notebook 01 with live: true asks only what is missing), or set allow_incomplete: true in "
    "study.yaml to have these rated as they are."
)
NOBODY_NAMED = (
    "No round was drawn: nobody is named to rate. Name the raters in study.yaml (codes, such as raters: anna,ben) with the "
    "sample_size and the rubric you want, then run notebook 03: a round is drawn once."
)
PRACTICE = "Practice: these pairs are from a simulated round; what you choose is kept nowhere."


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
        not_drawn: Why there is no round, and what to do.
    """

    round: Round | None
    bound_to: Mapping[str, str]
    otherwise: Otherwise = field(default_factory=Otherwise)
    not_drawn: str = NOT_DRAWN

    @property
    def simulated(self) -> bool:
        """Whether its raters are simulated."""
        return self.round is not None and self.round.batch.simulated

    @property
    def current(self) -> bool:
        """Whether it was made from the present answers."""
        return self.round is not None and made_from(self.round.batch, self.bound_to)

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
            by: "rater" (see `frames.progress`) or "pair" (`frames.pairs`).
        """
        from evalkit.human import frames

        if by == "rater":
            return frames.progress(self.progress())
        return frames.pairs(self.round.batch.items if self.round else ())

    def lock(self, *, unfinished: bool = False) -> dict[str, Any]:
        """Closes the round for good; see `Round.lock`.

        Raises:
            DesignError: There is no round, nobody has voted yet, or somebody has not finished.
        """
        if self.round is None:
            raise DesignError(self.not_drawn)
        return self.round.lock(unfinished=unfinished)


def open_round(
    study: Study,
    name: str,
    base: Sequence[EvalResult],
    fine_tuned: Sequence[EvalResult],
    *,
    bound_to: Mapping[str, str],
    models: Mapping[str, str],
    sample_size: int = 50,
    raters: str = "",
    seed: int = 0,
    repeat_share: float = 0.1,
    stratify_by: str = "",
    rubric_file: str = "",
    gold_file: str = "",
    simulate_raters: int = 0,
    n_unanswered: int = 0,
    allow_incomplete: bool = False,
) -> Round | None:
    """The study's round, made when it is not there yet; an existing one is never touched.

    None is drawn for nobody: who rates is the study's to say. And none from answers that are not complete: it would be bound
    to answers that change when the rest comes in.

    Args:
        study: Where it lives.
        name: The round's name.
        base: The base model's answers.
        fine_tuned: The fine-tuned model's.
        bound_to: Hashes of what they were made from.
        models: Their names.
        sample_size: Pairs to show.
        raters: Codes, comma separated.
        seed: 0 draws one; a simulated round, which hides nothing, is then the same on every machine.
        repeat_share: Share of pairs shown twice.
        stratify_by: A slice to draw from in proportion, "" for none.
        rubric_file: The study's question, guidance and reasons; see `read_rubric`.
        gold_file: JSONL of pairs with a known winner (id, input, better, worse).
        simulate_raters: So many simulated raters when no real ones are named; their round has a folder of its own.
        n_unanswered: Answers of either model that are still missing.
        allow_incomplete: Draw a round all the same.

    Returns:
        None when no round is there yet and nobody is named, or answers are missing.

    Raises:
        DesignError: The name belongs to a round of people and simulated raters are asked for.
    """
    people, simulated = round_folder(study, name), simulated_folder(study, name, bound_to)
    simulate_raters = 0 if raters.strip() else simulate_raters
    if simulate_raters and (people / "batch.json").exists():
        raise DesignError(
            f"{people}: a round of people; set simulate_raters to 0 or name another rating_round"
        )
    folder = simulated if simulate_raters else people
    if (folder / "batch.json").exists():
        return Round.open(folder)
    codes = [f"simulated-{i + 1}" for i in range(simulate_raters)] or list(named(raters))
    if not codes or (n_unanswered and not allow_incomplete):
        return None
    try:
        prepare_human_eval_batch(
            base,
            fine_tuned,
            sample_size,
            seed=seed or (int(answers_seal(bound_to)[:12], 16) if simulate_raters else None),
            raters=codes,
            stratify_by=stratify_by or None,
            repeat_share=repeat_share,
            gold=read_gold(study.path(gold_file)) if gold_file else (),
            study=study.name,
            round=folder.name,
            models=models,
            bound_to=bound_to,
            simulated=simulate_raters > 0,
            folder=folder,
            **read_rubric(study.named_file(rubric_file)),
        )
    except DesignError:
        if not (folder / "batch.json").exists():  # else another run has just made it
            raise
    return Round.open(folder)


def find_round(study: Study, name: str, bound_to: Mapping[str, str]) -> Round | None:
    """The round of people of this name, else the simulated one made from these very answers, else None."""
    folders = [round_folder(study, name), simulated_folder(study, name, bound_to)]
    return next(
        (Round.open(folder) for folder in folders if (folder / "batch.json").exists()), None
    )


def simulated_folder(study: Study, name: str, bound_to: Mapping[str, str]) -> Path:
    """Where simulated raters work: apart from people, and anew for other answers."""
    return round_folder(study, f"{name[:40]}-simulated-{answers_seal(bound_to)[:8]}")


def drawn_otherwise(
    round_: Round | None,
    study: Study,
    base: Sequence[EvalResult],
    fine_tuned: Sequence[EvalResult],
    *,
    sample_size: int,
    raters: str,
    rubric_file: str,
) -> Otherwise:
    """What a study now says otherwise than the round that was drawn before."""
    if round_ is None:
        return Otherwise()
    batch, said = round_.batch, read_rubric(study.named_file(rubric_file))
    rubric = {name: tuple(value) if name == "reasons" else value for name, value in said.items()}
    wanted = min(sample_size, draw.differing(base, fine_tuned))
    codes = named(raters)
    return Otherwise(
        raters=() if batch.simulated or set(batch.raters) == set(codes) else codes,
        n_pairs=None if len(batch) == wanted else wanted,
        rubric=any(getattr(batch, name) != value for name, value in rubric.items()),
    )


def read_rubric(path: Path | None) -> dict[str, Any]:
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
    said = (
        {"question": first.lstrip("# "), "rubric": rest.strip()}
        if first.startswith("#")
        else {"rubric": text}
    )
    listed = re.search(
        r"^#+ *reasons *\n(.*?)(?=^#|\Z)", text, re.IGNORECASE | re.MULTILINE | re.DOTALL
    )
    reasons = re.findall(r"^[-*] *([^:\n]+)", listed[1], re.MULTILINE) if listed else []
    return {
        **said,
        **({"reasons": [one.strip().replace("_", " ") for one in reasons]} if reasons else {}),
    }


def read_gold(path: Path) -> list[dict[str, str]]:
    """Pairs with a known winner, one JSON object a line.

    Raises:
        DataError: A line is not such a pair.
    """
    pairs = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                pairs.append(
                    {
                        name: str(from_json(line)[name])
                        for name in ("id", "input", "better", "worse")
                    }
                )
            except (ValueError, KeyError, TypeError) as why:
                raise DataError(
                    f"{path}:{number}: not a gold pair ({why}); need id, input, better and worse"
                ) from why
    return pairs


def practice_copy(round_: Round) -> Round:
    """The same pairs without votes, to try the rater out, in a folder that goes with the copy, or when Python ends."""
    folder = Path(tempfile.mkdtemp(prefix="evalkit-practice-"))
    for name in ("batch.json", "key.json"):
        shutil.copy(round_.folder / name, folder / name)
    copy = Round.open(folder)
    weakref.finalize(copy, shutil.rmtree, folder, ignore_errors=True)
    return copy


def in_jupyter(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody sits in front of this notebook, so that a rater makes sense."""
    return bool(environment.get("JPY_SESSION_NAME") or environment.get("VSCODE_PID"))


def inline_rater(round_: Round | None, rater: str = "") -> Any:
    """The rater for a notebook cell; a simulated round is shown as practice.

    Args:
        round_: The round.
        rater: A code of the batch; the only one when empty.

    Raises:
        DesignError: The code is missing or not on the list.
    """
    from evalkit.human.rater import Rater
    from evalkit.human.session import Session

    if round_ is None:
        raise DesignError(NOT_DRAWN)
    if round_.batch.simulated:
        return Rater(Session(practice_copy(round_), round_.batch.raters[0]), banner=PRACTICE)
    if not rater and len(round_.batch.raters) > 1:
        raise DesignError(
            f"set the parameter rater to your code, one of the {len(round_.batch.raters)} on this round's list"
        )
    return Rater(Session(round_, rater or next(iter(round_.batch.raters))))
