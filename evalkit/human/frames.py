"""What people said as tidy frames: one row a vote, a rater, a slice; documented columns, none that is a whole object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from evalkit.human.ratings import LABELS, Rating
from evalkit.human.votes import CHOICES

if TYPE_CHECKING:
    import pandas as pd

    from evalkit.human.blind import Pair
    from evalkit.human.preference import Preference
    from evalkit.human.rounds import Progress

_VOTE = {
    "rater": "category",
    "item_id": "string",
    "example_id": "string",
    "shown_as": ("asked", "repeat", "gold"),
    "label": LABELS,
    "score": "Int8",
    "choice": CHOICES,
    "side": ("left", "right"),
    "longer": "Int64",
    "seconds": "Float64",
    "reasons": "string",
    "note": "string",
    "at": "datetime64[us, UTC]",
    "simulated": "boolean",
}
_RATER = {
    "rater": "string",
    "votes": "Int64",
    "win_rate": "Float64",
    "ci_low": "Float64",
    "ci_high": "Float64",
    **dict.fromkeys(("gold_rate", "self_agreement", "others_rate", "left_rate"), "Float64"),
    **dict.fromkeys(("left_p", "fast_rate", "median_s"), "Float64"),
    "flags": "string",
}
_SLICE = {
    "field": "category",
    "slice": "string",
    **dict.fromkeys(("n", "wins", "losses", "ties"), "Int64"),
    **dict.fromkeys(("win_rate", "ci_low", "ci_high", "p_value", "p_adjusted"), "Float64"),
    "shown": "boolean",
}
_PAIR: Mapping[str, str] = dict.fromkeys(
    ("item_id", "example_id", "input", "response_a", "response_b"), "string"
)
_PROGRESS = {"rater": "string", "done": "Int64", "total": "Int64", "last_at": "datetime64[us, UTC]"}


def votes(ratings: Sequence[Rating]) -> pd.DataFrame:
    """One row a vote, un-blinded.

    Returns:
        rater (category); item_id, of a repeat that of the item it repeats; example_id; shown_as (asked, repeat or gold:
        only asked ones enter the result); label (fine_tuned, base, tie, both_bad); score (1, -1, 0, 0); choice (left,
        right, tie, both_bad); side (where the fine-tuned answer stood); longer (characters by which it is longer);
        seconds; reasons (joined by "; "); note; at (UTC); simulated. Then a category for each slice field under its own
        name, `slice_<field>` when a column above has that name.
    """
    return _with_slices(_typed([_vote(one) for one in ratings], _VOTE), ratings)


def raters(found: Preference) -> pd.DataFrame:
    """One row a rater.

    Returns:
        rater; votes, repeats and known pairs included; win_rate with ci_low and ci_high, over the pairs this rater
        judged; gold_rate, self_agreement, others_rate, left_rate, left_p, fast_rate and median_s (see `RaterCheck`);
        flags (joined by "; ", "" when nothing stands out). Shares are fractions, missing where nothing tells.
    """
    rows = [
        {**asdict(one), **_rate(found.by_rater[one.rater]), "flags": "; ".join(one.flags)}
        for one in found.raters
    ]
    return _typed(rows, _RATER)


def slices(found: Preference) -> pd.DataFrame:
    """One row a slice.

    Returns:
        field, slice; n, wins, losses and ties (items); win_rate with ci_low and ci_high; p_value, the one that decides;
        p_adjusted (Holm over all slices); shown (whether a preference is shown after it).
    """
    rows = [
        {
            "field": one.field,
            "slice": one.slice,
            **{name: getattr(one.result, name) for name in ("n", "wins", "losses", "ties")},
            **_rate(one.result),
            "p_value": one.result.p_decides,
            "p_adjusted": one.p_adjusted,
            "shown": one.shown,
        }
        for one in found.slices
    ]
    return _typed(rows, _SLICE)


def progress(found: Iterable[Progress]) -> pd.DataFrame:
    """One row a rater: rater, done and total (votes, repeats included), last_at (UTC)."""
    return _typed([asdict(one) for one in found], _PROGRESS)


def pairs(items: Iterable[Pair]) -> pd.DataFrame:
    """One row a pair as raters see it, blind: item_id, example_id, input, response_a, response_b; then the slice fields."""
    items = list(items)
    rows = [{name: getattr(one, name) for name in _PAIR} for one in items]
    return _with_slices(_typed(rows, _PAIR), items)


def _vote(one: Rating) -> dict[str, object]:
    return {
        **{name: getattr(one, name, None) for name in _VOTE},
        "shown_as": one.kind,
        "side": "left" if one.fine_tuned_left else "right",
        "reasons": "; ".join(one.reasons),
    }


def _rate(result: object) -> dict[str, object]:
    named = {"win_rate": "estimate", "ci_low": "ci_low", "ci_high": "ci_high"}
    return {name: getattr(result, field) for name, field in named.items()}


def _typed(
    rows: Sequence[dict[str, object]], types: Mapping[str, str | tuple[str, ...]]
) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(types))
    for name, kind in types.items():
        if isinstance(kind, tuple):
            frame[name] = pd.Categorical(frame[name], kind)
        elif kind.startswith("datetime"):
            frame[name] = _times(frame[name])
        else:
            frame[name] = frame[name].astype(kind)  # pyright: ignore[reportArgumentType]
    return frame


def _times(written: Any) -> pd.Series:
    import pandas as pd

    known = written.astype("string").replace("", None)
    return pd.to_datetime(known, utc=True, format="ISO8601").astype("datetime64[us, UTC]")


def _with_slices(frame: pd.DataFrame, rows: Sequence[Rating | Pair]) -> pd.DataFrame:
    import pandas as pd

    own = set(frame.columns)
    for name in sorted({name for one in rows for name in one.slices}):
        values = [one.slices.get(name) for one in rows]
        kinds = sorted({one for one in values if one is not None})
        frame[f"slice_{name}" if name in own else name] = pd.Categorical(values, kinds)
    return frame
