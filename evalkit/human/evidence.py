"""What people said, as the evidence the decision reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit import wording
from evalkit.human.preference import Preference, win_rate_of
from evalkit.human.rounds import LOCK, LOCKS, Round
from evalkit.records import Against, Evidence
from evalkit.study import Study


def human_evidence(
    found: Preference, *, study: str, models: Mapping[str, str], bound_to: Mapping[str, str]
) -> Evidence:
    """The layer's record; an open round carries no result.

    Args:
        found: The analysed round.
        study: Its study.
        models: Names for a round that is not decoded yet.
        bound_to: Hashes for a round that is not decoded yet; a decoded one brings its own.
    """
    return Evidence(
        layer="human",
        study=study,
        made_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        models=found.models or models,
        bound_to=found.bound_to or bound_to,
        simulated=found.simulated,
        metric="win rate, ties counted half",
        unit="items",
        primary=None if found.withheld else found.win_rate.to_dict(),
        missing=found.missing,
        details=_details(found),
    )


def results_against(home: Study, *, alpha: float = 0.05) -> tuple[Against, ...]:
    """Every locked round of people in this study that prefers the base, whatever answers it was made from.

    A round for former answers of a model of the same name still speaks: the name is all that says which model it was,
    and a model that people did not prefer is not mended by asking it again. A checkpoint with a name of its own is
    another model, of which the round says nothing. Further votes on the same answers, in another round, do not take
    back the first ones either. A locked round that cannot be read any more could have said anything, so it stands too;
    and so does one whose lock somebody removed.
    """
    rounds = sorted({path.parent for path in (home.folder / "ratings").glob("*/lock*.json*")})
    was_locked = [one for one in rounds if any((one / name).exists() for name in (LOCK, LOCKS))]
    return tuple(found for one in was_locked if (found := _of_round(one, alpha)))


def _of_round(folder: Path, alpha: float) -> Against | None:
    try:
        round_ = Round.open(folder)
        key, result, locked_at = round_.key(), win_rate_of(round_, alpha=alpha), _locked_at(round_)
    except (ValueError, KeyError, TypeError, OSError) as why:  # a DataError is a ValueError
        said = f"the locked round cannot be read any more: {' '.join(str(why).split())}"
        return Against(layer="human", source=folder.name, models={}, said=said)
    if round_.batch.simulated or result.verdict != "worse":
        return None
    return Against(
        layer="human",
        source=folder.name,
        models=key.models,
        bound_to=key.bound_to,
        said=f"the fine-tuned answers win {wording.percent(result.estimate)}, over {wording.plural(result.n, 'item')}",
        at=locked_at,
    )


def _locked_at(round_: Round) -> str:
    return str(round_.lock_record().get("locked_at", ""))


def _details(found: Preference) -> dict[str, Any]:
    progress = [asdict(one) for one in found.progress]
    if found.withheld:
        return {
            "round": found.round,
            "withheld": found.withheld,
            "progress": progress,
            "votes": 0,
            "raters": [],
        }
    result = found.win_rate
    return {
        "round": found.round,
        "votes": sum(found.labels.values()),
        "raters": [asdict(one) for one in found.raters],
        "progress": progress,
        "lock": dict(found.lock),
        "labels": dict(found.labels),
        "ties": found.labels["tie"],
        "both_bad": found.labels["both_bad"],
        "identical": found.identical,
        "margin": found.margin,
        "conclusion": found.conclusion,
        "items": {"wins": result.wins, "losses": result.losses, "ties": result.ties},
        "asked_only": found.asked_only.to_dict(),
        "without_flagged": found.without_flagged and found.without_flagged.to_dict(),
        "by_rater": {rater: one.to_dict() for rater, one in found.by_rater.items()},
        "rater_sample": found.rater_sample.to_dict(),
        "agreement": found.agreement.to_dict(),
        "self_agreement": found.self_agreement.to_dict(),
        "position_bias": found.position.to_dict(),
        "shown_left": found.as_left.to_dict(),
        "shown_right": found.as_right.to_dict(),
        "length_adjusted": found.length_adjusted and found.length_adjusted.to_dict(),
        "reasons": [asdict(one) for one in found.reasons],
        "slices": [
            {"field": one.field, "slice": one.slice, "p_adjusted": one.p_adjusted}
            | one.result.to_dict()
            | {"verdict": one.verdict}
            for one in found.slices
        ],
        "metrics": [{"metric": one.metric, **one.agreement.to_dict()} for one in found.metrics],
    }
