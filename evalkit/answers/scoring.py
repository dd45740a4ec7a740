"""Scoring: checkers say whether an answer has the right form, scorers how close it comes; both may be a study's own code."""

from __future__ import annotations

import json
import math
import re
import runpy
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import partial
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any

from evalkit import conversation, wording
from evalkit.errors import DesignError
from evalkit.files import read_json
from evalkit.ledger import sha256_of
from evalkit.records import Answer, EvalResult, Example
from evalkit.study import inside, named

Checker = Callable[[str], bool | None]
Scorer = Callable[[str, str], float | bool | None]
Scoring = Callable[[Example, Answer, int], EvalResult]
Scorers = str | Scorer | Iterable[str | Scorer]
AUTO = "auto"

MOST_CELLS = 1_000_000_000  # length times length: about 20 ms of matching
PIECE = 10_000  # characters
_ROUNDING = 1e-9  # a cosine of 1.0000000000000002 is a 1
_IGNORED = dict.fromkeys(
    [*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF]
)
_ARTICLE_LINE = re.compile(r"^[A-Z]\d{2}\.\d{1,2}: .+")
_ICD10CM_LINE = re.compile(r"[A-Z]\d[0-9AB](\.[0-9A-Z]{1,4})?(:\s.+)?\Z")
_NAMED = re.compile(r"(?P<file>[^:]+\.py):(?P<name>[^\W\d]\w*)\Z")


def check_format(output: str) -> bool:
    """The article's checker: every line reads `A00.0: description`.

    It knows only codes with one or two digits after the point; `checker("icd10cm")` knows them all.

    Example:
        >>> check_format("E11.65: Type 2 diabetes with hyperglycemia"), check_format("I10: Hypertension")
        (True, False)
    """
    return all(_ARTICLE_LINE.match(line) for line in output.strip().split("\n"))


def icd10cm_format(output: str) -> bool:
    """Every line that is not blank starts with a code of ICD-10-CM's syntax, alone or followed by `: description`.

    Example:
        >>> [icd10cm_format(f"{code}: x") for code in ("I10", "E11.649", "S72.001A", "M1A.0110", "11.6")]
        [True, True, True, True, False]
    """
    lines = [line.strip() for line in output.split("\n") if line.strip()]
    return bool(lines) and all(_ICD10CM_LINE.match(line) for line in lines)


def unchecked(output: str) -> None:
    """The checker "none": no answer has a right or a wrong form, and no results carry the metric `format`."""


def checker(choice: str | Checker, *, folder: Path | None = None) -> Checker:
    """A checker by name: article, icd10cm, none, `regex:<pattern>` (whole answer), `schema:<file>`; or any callable.

    `mine.py:name` is a function of one's own: (answer) -> True or False.

    Args:
        choice: Name or callable(answer) -> bool.
        folder: Where a relative path starts; the working directory by default.

    Raises:
        DesignError: No such checker, a broken pattern, no readable schema, or a file that fails.
    """
    kind, _, rest = str(choice).partition(":")
    if kind == "regex" and rest:
        return _regex_checker(rest)
    if kind == "schema" and rest:
        return _schema_checker(inside(folder, rest) if folder else Path(rest))
    return _chosen(choice, CHECKERS, "checker", folder, forms="regex:<pattern>, schema:<file>, ")


def _chosen(
    choice: Any, known: Mapping[str, Any], kind: str, folder: Path | None, forms: str = ""
) -> Any:
    """A checker or a scorer: itself, in a file of one's own, or one of the known."""
    if callable(choice):
        return choice
    if named := _NAMED.match(str(choice)):
        return _own_function(named, f"{kind} {choice}", folder or Path())
    if str(choice) in known:
        return known[str(choice)]
    use = f"{', '.join(known)}, {forms}FILE.py:NAME or a callable"
    raise DesignError(f"{kind} {choice!r}: use {use}")


CHECKERS: Mapping[str, Checker] = {
    "article": check_format,
    "icd10cm": icd10cm_format,
    "none": unchecked,
}


def _regex_checker(pattern: str) -> Checker:
    try:
        compiled = re.compile(pattern)
    except re.error as why:
        raise DesignError(f"checker regex:{pattern}: not a regular expression ({why})") from why
    return lambda output: compiled.fullmatch(output.strip()) is not None


def _schema_checker(path: Path) -> Checker:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry

    remedy = "name another file, or checker: none"
    schema = read_json(path, said="checker: no readable JSON schema", remedy=remedy)
    try:
        kind = validator_for(schema)
        kind.check_schema(schema)
    except (SchemaError, TypeError) as why:
        said = " ".join(str(getattr(why, "message", why)).split())[:200]
        raise DesignError(f"checker schema:{path}: no JSON schema ({said}); {remedy}") from why
    validator = kind(schema, registry=Registry())  # an empty one: a schema never fetches another

    def is_valid(output: str) -> bool:
        try:
            return validator.is_valid(json.loads(output))
        except (ValueError, RecursionError):
            return False

    return is_valid


def has_form(check: Checker, row: Example, text: str) -> bool:
    """Whether a row's answer has the form.

    Raises:
        DesignError: The checker raised, or said neither True nor False.
    """
    if check in CHECKERS.values():
        return bool(check(text))
    what = f"checker {getattr(check, '__name__', check)}"
    given = called(what, check, row, text)
    if not isinstance(given, bool):
        raise blamed(what, row, f"gave {given!r:.80}; need True or False")
    return given


_checker_of = checker  # for where a parameter has its name


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
    return _chosen(choice, SCORERS, "scorer", folder)


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
    if outcome not in {"ok", "truncated"}:
        return None if one is tool_call and not any(map(conversation.calls_in, right)) else 0.0
    made, own_row = list[float](), None if is_ours(one) else row
    for expected in right or ("",):
        given = (
            _own_score(one, own_row, expected, predicted) if own_row else one(expected, predicted)
        )
        if given is not None:
            is_lost = isinstance(given, bool) and outcome != "ok"
            made.append(0.0 if is_lost else float(given))
    return max(made, default=None)


def is_ours(one: Scorer) -> bool:
    """Whether it is one of the kit's own."""
    return SCORERS.get(getattr(one, "__name__", "")) is one


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


def prepared(checker: str | Checker, scorers: Scorers, rows: Iterable[Example] = ()) -> Scoring:
    """A function that scores one answer; names are looked up now, before anything is asked.

    With the checker "auto" the article's form is asked for where the expected answers of `rows` have it: in another task every
    answer would lack it.

    Raises:
        DesignError: No such checker or scorer.
    """
    if checker == AUTO:
        has_it = any(check_format(one.expected) for one in rows)
        checker = "article" if has_it else "none"
    return partial(_scored, _checker_of(checker), scorers_by_name(named(scorers)))


def score_answer(
    example: Example,
    answer: Answer,
    sample: int = 0,
    *,
    checker: str | Checker = "article",
    scorers: Scorers = ("similarity",),
) -> EvalResult:
    """Joins an example with one answer and scores it.

    An answer that is not "ok" is wrong: it matches nothing, has no right form, and a yes/no scorer says no. A truncated
    answer keeps the similarity its text earns; the other failures score 0. Of several right answers the best counts;
    where nothing is expected only scorers of one's own are asked, with an empty expectation.
    """
    return prepared(checker, scorers, [example])(example, answer, sample)


def _scored(
    check: Checker, scorers: Mapping[str, Scorer], example: Example, answer: Answer, sample: int
) -> EvalResult:
    text, ok = answer.text.strip(), answer.outcome == "ok"
    matches = ok and any(exact(one, text) for one in example.right)
    scores = dict(answer.scores)
    for name, one in scorers.items():
        if example.expects or not is_ours(one):
            scores[name] = score(one, example.right, text, answer.outcome, example)
    of_row = ("example_id", "expected", "slices", "cluster", "messages", "also_right")
    of_answer = ("outcome", "finish_reason", "prompt_tokens", "completion_tokens", "latency_ms")
    return EvalResult(
        **{name: getattr(example, name) for name in of_row},
        **{name: getattr(answer, name) for name in (*of_answer, "error", "has_thoughts")},
        input_text=input_text(example.messages),
        predicted=text,
        exact_match=matches if example.expects else None,
        format_correct=None if check is unchecked else ok and has_form(check, example, text),
        sample=sample,
        scores=scores,
        thinking_tokens=answer.tokens_of_thoughts(),
    )


def input_text(messages: Sequence[Mapping[str, object]]) -> str:
    """What the user asked last; the last message of any kind when no user speaks."""
    asked = [one for one in messages if one.get("role") == "user"] or list(messages)
    return wording.flattened(asked[-1].get("content")) if asked else ""


def _own_function(named: re.Match[str], what: str, folder: Path) -> Callable[..., Any]:
    """The function that `mine.py:half` names, in a file inside the folder, which is executed."""
    path = _file(folder, named["file"], what)
    try:
        found = runpy.run_path(str(path)).get(named["name"])
    except (Exception, SystemExit) as why:
        frames = traceback.extract_tb(why.__traceback__)
        lines = [one.lineno for one in frames if one.filename == str(path)]
        line = why.lineno if isinstance(why, SyntaxError) else [1, *lines][-1]
        told = f"{path}:{line}: {what}: the file fails: {_said(why)}"
        raise DesignError(f"{told}; mend it") from why
    if not callable(found):
        raise DesignError(f"{path}: {what}: no function {named['name']} in it")

    def own(*texts: str) -> Any:
        return found(*texts)

    own.__name__ = named["name"]  # a metric's, whatever the function calls itself
    return own


def own_hashes(choices: Iterable[str], folder: Path) -> dict[str, str]:
    """SHA-256 hex of each file that such names come from, by its name; other names have none."""
    files = {named["file"] for one in choices if (named := _NAMED.match(one))}
    return {name: sha256_of(_file(folder, name, name)) for name in sorted(files)}


def called(what: str, function: Callable[..., Any], example: Example, *texts: str) -> Any:
    """What a scorer or checker says of one row, NumPy's booleans as Python's.

    Raises:
        DesignError: It raised; the message names it, the row and the line.
    """
    try:
        given = function(*texts)
    except Exception as why:
        raise blamed(what, example, f"{_said(why)}{_place(why)}") from why
    return bool(given) if getattr(getattr(given, "dtype", None), "kind", "") == "b" else given


def blamed(what: str, example: Example, told: str) -> DesignError:
    """The error that names a scorer or checker and the row it failed at."""
    line = f" (line {example.line})" if example.line else ""
    return DesignError(f"{what}, row {example.example_id!r}{line}: {told}")


def _file(folder: Path, name: str, what: str) -> Path:
    path = inside(folder, name)
    if not path.is_file():
        raise DesignError(f"{what}: {path}: no such file")
    return path


def _place(why: BaseException) -> str:
    """Where in the function's own file it went wrong, not in the library it called, nor here where it was called."""
    frames = [one for one in traceback.extract_tb(why.__traceback__) if one.filename != __file__]
    same = [one for one in frames if one.filename == frames[0].filename]
    return f" ({same[-1].filename}:{same[-1].lineno})" if same else ""


def _said(why: BaseException) -> str:
    return f"{type(why).__name__}: {why}" if str(why) else type(why).__name__
