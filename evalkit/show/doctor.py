"""What the doctor found in a test set, and what its rows suggest to declare, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from evalkit import stats
from evalkit.benchmark.doctor import (
    FEW,
    FEW_IN_SLICE,
    ICD,
    MANY,
    NEAR,
    SCHEMA,
    USUAL,
    Checkup,
    Finding,
    Hints,
)
from evalkit.show.tables import Html, joined, note, table
from evalkit.wording import count, listed, plural, points, share, visible

MOST_LINES = 12  # lines that a finding names
MOST_ALIKE = 3  # findings of a kind that are told one by one when all have the same remedy
_MOST_NAMED = 6
_NOUNS = {
    "unusable": ("unusable row", "unusable rows"),
    "near-duplicate": ("group of near-duplicates", "groups of near-duplicates"),
    "leak (exact)": ("exact leak", "exact leaks"),
    "leak (8-gram)": ("8-gram leak", "8-gram leaks"),
    "nothing expected": ("row without expected answer", "rows without expected answer"),
    "no slice value": ("slice field with gaps", "slice fields with gaps"),
    "too many slices": ("slice field with too many values", "slice fields with too many values"),
    "size": ("remark on the size", "remarks on the size"),
}
_LEAKED = "take it out of the test set or of the training"


def checkup(found: Checkup) -> Html:
    """What the doctor found in the test set."""
    told = table(rows(found), caption=title(found))
    return told if found.candidates is None else joined(told, note(f"{undeclared(found)}."))


def title(found: Checkup) -> str:
    """What was found, and what the size of the set can show."""
    sees = [f"{points(d, sign=False)} points at {part:.0%}" for part, d in _detectable(found)]
    sized = f"; it finds {listed(sees)} disagreement, 4 times in 5" if sees else ""
    leaks = "; no training file was searched for leaks"
    if found.train:
        leaked = any(kind.startswith("leak") for kind in found.counts())
        leaks = "" if leaked else "; none of them was found in the training file"
    what = listed(counted(found)) or "nothing to mend"
    return f"{plural(found.n, 'row')}: {what}{sized}{leaks}"


def lines(found: Checkup) -> list[str]:
    """The whole checkup for a terminal: what the set is and whether it is fit, then a line a finding."""
    fit = "Fit to test with." if found.healthy else "Mend it before a run."
    against = f"compared with {found.train}" if found.train else "not compared with a training file"
    sources = "" if found.n_sources is None else f" from {plural(found.n_sources, 'source')}"
    what = listed(counted(found)) or "nothing"
    told = [f"{found.path}: {plural(found.n, 'row')}{sources}, {against}. Found: {what}. {fit}"]
    if sees := [f"{points(d, sign=False)} at {part:.0%}" for part, d in _detectable(found)]:
        by = "Differences it finds, in points, by share of examples the models disagree on"
        told.append(f"{by}: {', '.join(sees)}.")
    told += [] if found.candidates is None else [f"{undeclared(found)}."]
    for row in rows(found):
        where = f" (line {row['lines']})" if row["lines"] else ""
        told.append(f"  {row['kind']}{where}: {row['what']}; {row['how to mend']}")
    return told


def counted(found: Checkup) -> list[str]:
    """Findings by kind: "2 duplicates"."""
    return [plural(n, *_NOUNS.get(kind, (kind,))) for kind, n in found.counts().items()]


def rows(found: Checkup) -> list[dict[str, str]]:
    """Findings as rows of a table; many with the same remedy share the last row of their kind."""
    told = []
    for kind in found.counts():
        alike = [(one, *said(one)) for one in found.findings if one.kind == kind]
        many = len(alike) > MOST_ALIKE + 1 and len({remedy for _, _, remedy in alike}) == 1
        named, rest = (alike[:MOST_ALIKE], alike[MOST_ALIKE:]) if many else (alike, [])
        told += [_row(kind, one.lines, what, remedy) for one, what, remedy in named]
        if rest:
            places = sorted(line for one, *_ in rest for line in one.lines)
            more = f"{count(len(rest))} more such findings"
            told.append(_row(kind, places, more, rest[0][-1]))
    return told


def _row(kind: str, places: Sequence[int], what: str, remedy: str) -> dict[str, str]:
    more = f" and {count(len(places) - MOST_LINES)} more" if len(places) > MOST_LINES else ""
    named = ", ".join(map(str, places[:MOST_LINES])) + more
    return {"kind": kind, "lines": named, "what": what, "how to mend": remedy}


def said(one: Finding) -> tuple[str, str]:
    """What was found, and what to do about it."""
    what, remedy = "", ""
    match one.kind:
        case "unusable" if one.problem:
            what, remedy = one.problem.problem, one.problem.remedy
        case "nothing expected":
            what = f"nothing is expected of {count(one.n)} of {plural(one.of, 'row')}"
            remedy = "nothing, where people or the form decide; else end the row with the expected answer"
        case "conflict":
            what, remedy = "same prompt, different expected answers", "keep the right one"
        case "duplicate":
            what = f"same prompt, {'same expected answer' if one.declared else 'nothing expected'}"
            remedy = "keep one of them"
        case "near-duplicate":
            what = f"{len(one.lines)} inputs, each at least {NEAR:.0%} alike to another"
            shared = "keep one, or declare a cluster_field (doctor: --cluster) that they share"
            remedy = (
                "keep one; their sources differ, so they count apart" if one.declared else shared
            )
        case "leak (exact)":
            what, remedy = f"its prompt is line {one.n} of the training file", _LEAKED
        case "leak (8-gram)":
            runs = share(one.n, one.of)
            what, remedy = f"{runs} of its 8-word runs stand in the training file", _LEAKED
        case "no slice value":
            what, remedy = (
                f"no value of {one.about}",
                f"fill in {one.about} for {plural(one.n, 'row')}",
            )
        case "too many slices":
            some, most = listed([repr(value[:40]) for value in one.examples]), stats.MOST_VALUES
            has = f"has {count(one.n)} values in {plural(one.of, 'row')}, such as {some}"
            what = f"slice field {one.about} {has}; at most {most} can be cut by"
            remedy = f"declare a field with fewer values, or take {one.about} out of slice_fields"
        case "thin slice":
            what = f"{one.about} has {plural(one.n, 'row')}"
            remedy = f"{FEW_IN_SLICE - one.n} more would give it a p-value of its own"
        case "size":
            what, remedy = _sized(one)
    return what, remedy


def _sized(one: Finding) -> tuple[str, str]:
    if one.about == "pairs":
        pairs = f"{plural(one.n, 'pair')} of long inputs that share part of their text not compared"
        return (
            pairs,
            "nothing, when they share a template; near-duplicates among them may be missed",
        )
    n = plural(one.n, "row")
    if one.n < FEW:
        more = f"{FEW - one.n} more rows reach {FEW}, {USUAL - one.n} the usual {USUAL}"
        return f"{n}: single rows have too much influence", more
    return (
        f"{n}: above {count(MANY)} each row costs more than it tells",
        "use a limit while you iterate",
    )


def undeclared(found: Checkup) -> str:
    """That no slice field is declared, and which could be."""
    advice = "rows have no field to cut by: add one to their metadata"
    if found.candidates:
        advice = f"declare slice_fields: {_quoted(','.join(found.candidates))}"
    return visible(f"No slice is declared, so none can be shown worse or safe; {advice}")


def hinted(found: Hints) -> list[str]:
    """What could be declared, each as a line of plain text, fit for a comment and a terminal."""
    told = [
        "No row has a field to cut results by; a metadata field such as kind or language would be one"
    ]
    if found.slices:
        fields = [f"{name} ({_most(values)})" for name, values in found.slices.items()]
        declared = _quoted(",".join(found.slices))
        told = [f"Rows have {listed(fields)}; to cut by: slice_fields: {declared}"]
    for name, n in found.clusters.items():
        count_as = f"rows of one source count together: cluster_field: {_quoted(name)}"
        told.append(f"Rows share {name} ({n} values); {count_as}")
    if found.checker:
        looks = {
            SCHEMA: "are JSON; put a JSON schema beside the test file",
            ICD: "are codes of ICD-10-CM",
        }
        like = looks.get(found.checker, f"are one of {found.n_labels} labels")
        told.append(f"Expected answers {like}: checker: {_quoted(found.checker)}")
    return [visible(" ".join(one.splitlines())) for one in told]


def _detectable(found: Checkup) -> list[tuple[float, float]]:
    return [(part, least) for part, least in found.detectable.items() if least]


def _most(values: Mapping[str, int]) -> str:
    named = [f"{value} {count(n)}" for value, n in [*values.items()][:_MOST_NAMED]]
    more = len(values) - _MOST_NAMED
    return ", ".join([*named, *([f"and {more} more"] if more > 0 else [])])


def _quoted(text: str) -> str:
    """As study.yaml takes it."""
    return json.dumps(text, ensure_ascii=False)
