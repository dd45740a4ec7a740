"""What a round says, row by row, for the chapter's tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evalkit import wording
from evalkit.conversation import Conversation
from evalkit.human.preference import Preference

RATER_COLUMNS = {
    "rater": "Rater",
    "votes": "Votes",
    "win_rate": "Fine-tuned wins",
    "gold_rate": "Known winners found",
    "self_agreement": "Same on repeats",
    "others_rate": "With the others",
    "left_rate": "Left chosen",
    "fast_rate": "Under 3 s",
    "median_s": "Median seconds",
    "flags": "Flags",
}
DISAGREEMENT_COLUMNS = {
    "example_id": "Example",
    "input": "Input",
    "expected": "Expected",
    "base": "Base answer",
    "fine_tuned": "Fine-tuned answer",
    "people": "People prefer",
    "metric": "Metric's gain, points",
}


def label_rows(found: Preference) -> list[dict[str, Any]]:
    """First-time votes by label."""
    names = {
        "fine_tuned": "Fine-tuned is better",
        "base": "Base is better",
        "tie": "About the same",
        "both_bad": "Both bad",
    }
    total = sum(found.labels.values())
    return [
        {
            "label": names[label],
            "votes": votes,
            "share": wording.percent(votes / total if total else None),
        }
        for label, votes in found.labels.items()
    ]


def rater_rows(found: Preference) -> list[dict[str, Any]]:
    """One row a rater with everything that is checked."""
    rates = ("gold_rate", "self_agreement", "others_rate", "left_rate", "fast_rate")
    return [
        {
            "rater": one.rater,
            "votes": one.votes,
            "win_rate": wording.percent(found.by_rater[one.rater].estimate, 0),
            **{name: wording.percent(getattr(one, name), 0) for name in rates},
            "median_s": wording.number(one.median_s, 1),
            "flags": "; ".join(one.flags) or "nothing stands out",
        }
        for one in found.raters
    ]


def metric_rows(found: Preference, label: Callable[[str], str]) -> list[dict[str, Any]]:
    """One row a metric, named by `label`: how often it names the model people name."""
    return [
        {
            "metric": label(one.metric),
            "share": wording.share(one.agreement.successes, one.agreement.n),
            "interval": f"{wording.percent(one.agreement.ci_low)} to {wording.percent(one.agreement.ci_high)}"
            if one.agreement.n
            else wording.NOTHING,
            "undecided": one.undecided_by_metric,
        }
        for one in found.metrics
    ]


def disagreement_rows(found: Preference) -> list[dict[str, Any]]:
    """The pairs on which people and the metric part most."""
    return [
        {name: getattr(one, name) for name in DISAGREEMENT_COLUMNS}
        | {
            "input": Conversation(one.messages),
            "people": "fine-tuned" if one.people > 0 else "base",
            "metric": wording.points(one.metric),
        }
        for one in found.disagreements
    ]
