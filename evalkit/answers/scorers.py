"""Scorers say how close an answer comes to the right one."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from numbers import Real
from pathlib import Path

from evalkit import conversation
from evalkit.answers.own_code import blamed, called, is_own, own_function
from evalkit.errors import DesignError
from evalkit.records import Example

Scorer = Callable[[str, str], float | bool | None]

MOST_CELLS = 1_000_000_000  # length times length: about 20 ms of matching
PIECE = 10_000  # characters
_ROUNDING = 1e-9  # a cosine of 1.0000000000000002 is a 1
_IGNORED = dict.fromkeys(
    [*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF]
)


def similarity(expected: str, predicted: str) -> float:
    """Characters in common, in order: rapidfuzz's normalised Indel similarity, 2M / T with the best matching.

    Beyond `MOST_CELLS` (two texts of 30,000 characters) their common ends are set aside, the rest is cut into as many
    pieces of at most 10,000 characters, and piece is matched with piece: never more than the similarity itself.

    Example:
        >>> similarity("E11.65", "E11.9"), similarity("", "")
        (0.7272727272727273, 1.0)
    """
    from rapidfuzz.distance import Indel

    one, other = expected.strip(), predicted.strip()
    if len(one) * len(other) <= MOST_CELLS:
        return Indel.normalized_similarity(one, other)
    return _similarity_by_pieces(one, other)


def _similarity_by_pieces(one: str, other: str) -> float:
    """At most the similarity, in time that grows with the length: what lies between the common ends, piece by piece."""
    from rapidfuzz.distance import LCSseq

    start = common_start(one, other)
    end = common_start(one[start:][::-1], other[start:][::-1])
    mine, theirs = one[start : len(one) - end], other[start : len(other) - end]
    n = max(1, -(-max(len(mine), len(theirs)) // PIECE))
    cut = [(place * len(mine) // n, place * len(theirs) // n) for place in range(n + 1)]
    common = sum(LCSseq.similarity(mine[a:c], theirs[b:d]) for (a, b), (c, d) in pairwise(cut))
    return 2 * (start + end + common) / (len(one) + len(other))


def common_start(one: str, other: str) -> int:
    """How many characters two texts begin with in common.

    Example:
        >>> common_start("E11.65", "E11.9")
        4
    """
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def article_similarity(a: str, b: str) -> float:
    """The article's ratio, difflib's 2M / T, with autojunk off: on, one changed character in 400 gives 0.50."""
    return SequenceMatcher(None, a, b, autojunk=False).ratio()


def exact(expected: str, predicted: str) -> bool:
    """Equal once both are stripped."""
    return expected.strip() == predicted.strip()


def normalised_exact(expected: str, predicted: str) -> bool:
    """Equal once letter case, runs of white space, unseen characters and Unicode's ways of composing are levelled."""
    return _levelled(expected) == _levelled(predicted)


def _levelled(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).translate(_IGNORED).casefold().split())


def all_lines_present(expected: str, predicted: str) -> bool:
    """Every expected line stands in the answer. It rewards listing everything: show it beside exact match."""
    given = {line.strip() for line in predicted.split("\n")}
    return all(line.strip() in given for line in expected.split("\n") if line.strip())


def tool_call(expected: str, predicted: str) -> bool | None:
    """The calls that were expected, each by name and by arguments as JSON; which of several comes first does not count.

    Undefined where no call is expected. Words beside the calls don't count either.
    """
    wanted = conversation.calls_in(expected)
    return sorted(wanted) == sorted(conversation.calls_in(predicted)) if wanted else None


_OURS = (exact, normalised_exact, similarity, article_similarity, all_lines_present, tool_call)
SCORERS: Mapping[str, Scorer] = {one.__name__: one for one in _OURS}


def scorer(choice: str | Scorer, *, folder: Path | None = None) -> Scorer:
    """A scorer by name, or any callable(expected, predicted) -> a number in [0, 1], a bool, or None when undefined.

    `mine.py:half` is such a function of one's own, in a file below `folder` (the working directory by default).

    Raises:
        DesignError: No such scorer, or a file that fails.
    """
    if callable(choice):
        return choice
    if is_own(choice):
        return own_function(choice, kind="scorer", folder=folder)
    if choice not in SCORERS:
        raise DesignError(
            f"scorer {choice!r}: use {', '.join(SCORERS)}, FILE.py:NAME or a callable(expected, predicted)"
        )
    return SCORERS[choice]


def scorers_by_name(
    chosen: Iterable[str | Scorer], *, folder: Path | None = None
) -> dict[str, Scorer]:
    """Each scorer by the name of its metric.

    Raises:
        DesignError: No such scorer, two of one name, or one of its own named like a metric that is always there.
    """
    found: dict[str, Scorer] = {}
    for one in chosen:
        made = scorer(one, folder=folder)
        name = getattr(made, "__name__", str(one))
        built_in = SCORERS.get(name) is made
        if not built_in and (name in {"exact_match", "format", *SCORERS} or name in found):
            raise DesignError(
                f"scorer {one!r}: another metric is called {name} too; give the function a name of its own"
            )
        found[name] = made
    return found


def score(
    one: Scorer, right: Sequence[str], predicted: str, outcome: str, row: Example | None = None
) -> float | None:
    """The best of what it says against each right answer; against an empty one where nothing is expected."""
    made = (_score_against(one, each, predicted, outcome, row) for each in right or ("",))
    return max((score for score in made if score is not None), default=None)


def is_ours(one: Scorer) -> bool:
    """Whether it is one of the kit's own."""
    return SCORERS.get(getattr(one, "__name__", "")) is one


def _score_against(
    one: Scorer, expected: str, predicted: str, outcome: str, row: Example | None
) -> float | None:
    if outcome not in {"ok", "truncated"}:
        return None if one is tool_call and tool_call(expected, "") is None else 0.0
    own_row = None if is_ours(one) else row
    score = _own_score(one, own_row, expected, predicted) if own_row else one(expected, predicted)
    if score is None:
        return None
    return float(score and outcome == "ok") if isinstance(score, bool) else float(score)


def _own_score(one: Scorer, row: Example, expected: str, predicted: str) -> float | bool | None:
    """What somebody's function says of a row, once it is a score.

    Raises:
        DesignError: It raised, or gave something else.
    """
    what = f"scorer {getattr(one, '__name__', one)}"
    given = called(what, one, row, expected, predicted)
    if given is None or isinstance(given, bool):
        return given
    number = float(given) if isinstance(given, Real) else math.inf
    if math.isnan(number):
        return None
    if not -_ROUNDING <= number <= 1 + _ROUNDING:
        got = f"gave {given!r:.80} ({type(given).__name__})"
        need = "need a number from 0 to 1, True, False, or None where it is undefined"
        raise blamed(what, row, f"{got}; {need}")
    return min(1.0, max(0.0, number))
