"""Slice finder: which combination of traits holds the regressions. Exploratory: it looks first and tests afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from evalkit import stats, wording
from evalkit.answers.pairs import Pair
from evalkit.benchmark.comparison import Comparison
from evalkit.benchmark.slices import NO_VALUE
from evalkit.conversation import attachments, conversation_text, own_messages, spoken_text
from evalkit.errors import DesignError
from evalkit.records import Brief

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Predicate = Callable[[Pair], bool]
LABEL = "exploratory: found by looking, so it needs fresh examples to be believed"
MAX_VALUES = 20  # a field with more values names examples, not slices


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Examples that share one or two traits.

    Attributes:
        traits: The one or two traits, in words.
        n_regressed: Right before, wrong now.
        share_of_regressed: Of all regressions, the part that lies here.
        test: Paired test inside the segment, not adjusted; cluster-robust where sources are shared.
        p_adjusted: Benjamini-Hochberg over every segment looked at.
    """

    traits: tuple[str, ...]
    n: int
    n_fixed: int
    n_regressed: int
    share_of_regressed: float
    test: Any
    p_adjusted: float | None = None

    @property
    def estimate(self) -> float | None:
        """Fine-tuned minus base, inside the segment."""
        return self.test.estimate

    @property
    def where(self) -> str:
        """Its traits in one phrase."""
        return " and ".join(self.traits)

    @property
    def what(self) -> str:
        """What was lost there, with interval (at the test's level) and counts."""
        share = wording.percent(self.share_of_regressed, 0)
        lost = f"{self.n_regressed} regressed of {self.n}, {share} of all regressions"
        return f"{wording.effect(self.test)}, {lost}."

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Found(Brief):
    """The worst segments, and how many were looked at."""

    segments: tuple[Segment, ...]
    n_looked_at: int
    min_support: int
    label: str = LABEL

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def to_frame(self) -> pd.DataFrame:
        """One row a segment, the smallest adjusted p first.

        Columns: `where`: text, its traits; `n`, `n_fixed`, `n_regressed`: Int64; `share_of_regressed` (of all regressions),
        `estimate` (fine-tuned minus base inside it), `ci_low`, `ci_high`, `p_adjusted` (over everything looked at): Float64.
        """
        import pandas as pd

        floats = ("share_of_regressed", "estimate", "ci_low", "ci_high", "p_adjusted")
        dtypes = {"where": "str", **dict.fromkeys(("n", "n_fixed", "n_regressed"), "Int64")}
        dtypes |= dict.fromkeys(floats, "Float64")
        rows = [
            {"where": one.where, "share_of_regressed": one.share_of_regressed, **row}
            for one, row in zip(self.segments, self.to_dict()["segments"], strict=True)
        ]
        return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the evidence file."""
        rows = [
            {
                "traits": [*one.traits],
                "n": one.n,
                "n_fixed": one.n_fixed,
                "n_regressed": one.n_regressed,
                "estimate": one.estimate,
                "ci_low": one.test.ci_low,
                "ci_high": one.test.ci_high,
                "p_adjusted": one.p_adjusted,
            }
            for one in self.segments
        ]
        return {
            "label": self.label,
            "n_looked_at": self.n_looked_at,
            "min_support": self.min_support,
            "segments": rows,
        }

    def _repr_html_(self) -> str:
        return wording.html_table({one.where: one.what for one in self.segments})


def find_slices(
    comparison: Comparison,
    *,
    predicates: Mapping[str, Predicate | str] | None = None,
    min_support: int = 20,
    depth: int = 2,
    top: int = 8,
) -> Found:
    """Looks through single traits and pairs of traits for those in which the fine-tuned model lost most.

    Traits: every slice value the examples carry; of the whole conversation its length, number of lines and of messages
    (by thirds), whether it holds digits and whether something is attached; predicates come on top. What the test set's
    prompts share, such as a system prompt, is left out. Only losses are reported; p by Benjamini-Hochberg over everything
    looked at.

    Args:
        comparison: The comparison of the two models.
        predicates: Name to a function of the pair, or to a regular expression searched in every message of the prompt.
        min_support: Smallest number of examples in a segment.
        depth: 1 for single traits, 2 for pairs as well.
        top: At most so many segments.

    Raises:
        DesignError: A depth other than 1 or 2, or a broken regular expression.
    """
    if depth not in {1, 2}:
        raise DesignError(f"depth is {depth}; the finder combines one or two traits")
    import numpy as np

    pairs = [one for one in comparison.pairs if one.status != "undefined"]
    masks = {
        name: mask
        for name, mask in _traits(pairs, predicates or {}).items()
        if mask.sum() >= min_support
    }
    fixed, regressed = (
        np.array([one.status == status for one in pairs], dtype=bool)
        for status in ("fixed", "regressed")
    )
    both_right = np.array([one.status == "both right" for one in pairs], dtype=bool)
    changes = fixed.astype(float) - regressed
    sources = np.array([one.cluster for one in pairs], dtype=object)
    segments = []
    for traits, mask in _candidates(masks, min_support, depth):
        n, right, b, c = (
            int(one.sum()) for one in (mask, mask & both_right, mask & fixed, mask & regressed)
        )
        test = None
        if c > b and comparison.clustered:
            test = replace(
                stats.paired_mean_test(
                    changes[mask], clusters=list(sources[mask]), alpha=comparison.alpha
                ),
                shown_as="points",
            )
        elif c > b:
            test = stats.paired_binary_test(right, b, c, n - right - b - c, alpha=comparison.alpha)
        share = c / max(int(regressed.sum()), 1)
        segments.append(
            Segment(
                traits=traits, n=n, n_fixed=b, n_regressed=c, share_of_regressed=share, test=test
            )
        )
    # Segments without a loss are not shown, but they were looked at: they count in the adjustment, with p = 1.
    raw = [
        1.0 if one.test is None or one.test.p_decides is None else one.test.p_decides
        for one in segments
    ]
    adjusted = stats.adjust(raw, method="bh")
    losses = [
        replace(one, p_adjusted=p)
        for one, p in zip(segments, adjusted, strict=True)
        if one.test is not None
    ]
    losses.sort(key=lambda one: (one.p_adjusted, one.estimate, len(one.traits)))
    return Found(
        segments=tuple(_without_echoes(losses)[:top]),
        n_looked_at=len(segments),
        min_support=min_support,
    )


def _traits(
    pairs: Sequence[Pair], predicates: Mapping[str, Predicate | str]
) -> dict[str, np.ndarray]:
    import numpy as np

    masks: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(field for one in pairs for field in one.base.slices):
        values = np.array([str(one.base.slices.get(name, NO_VALUE)) for one in pairs], dtype=object)
        found = sorted(set(values))
        if 1 < len(found) <= MAX_VALUES:
            masks |= {f"{name} = {value}": values == value for value in found}
    own = own_messages([one.base.prompt for one in pairs])
    texts = [spoken_text(messages) for messages in own]
    masks |= _thirds("input characters", [len(text) for text in texts])
    masks |= _thirds("input lines", [text.count("\n") + 1 for text in texts])
    masks |= _thirds("expected lines", [one.base.expected.count("\n") + 1 for one in pairs])
    digits = np.array([any(char.isdigit() for char in text) for text in texts], dtype=bool)
    masks |= {"input with digits": digits, "input without digits": ~digits}
    masks |= _thirds("messages", [len(one.base.prompt) for one in pairs])
    attached = np.array([bool(attachments(messages)) for messages in own], dtype=bool)
    masks |= {"input with an attachment": attached, "input without an attachment": ~attached}
    for name, rule in predicates.items():
        holds = _predicate(name, rule)
        masks[name] = np.array([holds(one) for one in pairs], dtype=bool)
    return {name: mask for name, mask in masks.items() if not mask.all()}


def _thirds(name: str, values: Sequence[int]) -> dict[str, np.ndarray]:
    import numpy as np

    numbers = np.array(values)
    if not len(numbers):
        return {}
    low, high = (int(one) for one in np.quantile(numbers, [1 / 3, 2 / 3], method="lower"))
    parts = {f"{name} ≤ {low}": numbers <= low, f"{name} > {high}": numbers > high}
    middle = (numbers > low) & (numbers <= high)
    return {**parts, f"{low} < {name} ≤ {high}": middle} if middle.any() else parts


def _predicate(name: str, rule: Predicate | str) -> Predicate:
    if callable(rule):
        return rule
    try:
        pattern = re.compile(rule)
    except re.error as why:
        raise DesignError(f"predicate {name!r}: {rule!r} is no regular expression ({why})") from why
    return lambda pair: any(pattern.search(text) for text in _searched(pair))


def _searched(pair: Pair) -> Iterator[str]:
    """Each message by itself, so that ^ and $ mean its ends, and the whole."""
    yield from (spoken_text([message]) for message in pair.base.prompt)
    yield conversation_text(pair.base.prompt)


def _candidates(
    masks: Mapping[str, np.ndarray], min_support: int, depth: int
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    for name, mask in masks.items():
        yield (name,), mask
    for (one, first), (other, second) in combinations(masks.items(), 2) if depth == 2 else ():
        both = first & second
        n = int(both.sum())
        if (
            min_support <= n < min(int(first.sum()), int(second.sum()))
        ):  # as large as one of them: the same examples again
            yield (one, other), both


def _without_echoes(segments: Sequence[Segment]) -> list[Segment]:
    """Drops a pair that loses no more than one of its traits alone, and a segment with the same numbers as one before."""
    alone = {one.traits[0]: one.estimate for one in segments if len(one.traits) == 1}
    kept: dict[tuple[int, int, int], Segment] = {}
    for one in segments:
        adds = len(one.traits) == 1 or all(
            (one.estimate or 0) < (alone.get(trait) or 0) for trait in one.traits
        )
        if adds:
            kept.setdefault((one.n, one.n_fixed, one.n_regressed), one)
    return list(kept.values())
