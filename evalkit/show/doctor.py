"""What the doctor found in a test set, and what its rows suggest to declare, in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from evalkit import stats
from evalkit.benchmark import doctor
from evalkit.benchmark.doctor import Checkup, Finding, Hints
from evalkit.show.tables import Html, joined, note, table
from evalkit.wording import count, listed, plural, points, share, visible

MOST_LINES = 12  # lines that a finding names
MOST_ALIKE = 3  # findings of a kind that are told one by one when all have the same remedy
_MOST_NAMED = 6
_EXPECTED = {  # what follows where answers are not compared as texts
    "nothing": "No row has an expected answer: people decide (benchmark_needs: not worse, in the rules), or declare "
    "primary_metric: format with a checker, or a scorer of your own",
    "calls": "Expected answers are calls of tools; by name and arguments: scorers: tool_call, primary_metric: tool_call",
}
_LEAKED = "take it out of the test set or of the training"
_SAID = {  # what was found, and what to do about it
    "nothing expected": (
        "nothing is expected of {n} of {of}",
        "nothing, where people or the form decide; else end the row with the expected answer",
    ),
    "conflict": ("same prompt, different expected answers", "keep the right one"),
    "duplicate": ("same prompt, and the same or nothing expected", "keep one of them"),
    "near-duplicate": (
        f"{{inputs}} inputs, each at least {doctor.NEAR:.0%} alike to another",
        "keep one, or declare a cluster_field (doctor: --cluster) that they share",
    ),
    "leak (exact)": ("its prompt is line {line} of the training file", _LEAKED),
    "leak (8-gram)": ("{share} of its 8-word runs stand in the training file", _LEAKED),
    "no slice value": ("no value of {about}", "fill in {about} for {rows}"),
    "too many slices": (
        "slice field {about} has {n} values in {of}, such as {some}; "
        f"at most {stats.MOST_VALUES} can be cut by",
        "declare a field with fewer values, or take {about} out of slice_fields",
    ),
    "thin slice": ("{about} has {rows}", "{to_tell} more would give it a p-value of its own"),
    "pairs": (
        "{pairs} of long inputs that share part of their text not compared",
        "nothing, when they share a template; near-duplicates among them may be missed",
    ),
    "few": (
        "{rows}: single rows have too much influence",
        f"{{to_few}} more rows reach {doctor.FEW}, {{to_usual}} the usual {doctor.USUAL}",
    ),
    "many": (
        f"{{rows}}: above {count(doctor.MANY)} each row costs more than it tells",
        "use a limit while you iterate",
    ),
}


def checkup(found: Checkup) -> Html:
    """What the doctor found in the test set."""
    told = table(rows(found), caption=title(found))
    return told if found.candidates is None else joined(told, note(f"{undeclared(found)}."))


def title(found: Checkup) -> str:
    """What was found, what the size of the set can show, and whether training was searched for it."""
    sources = "" if found.n_sources is None else f" from {plural(found.n_sources, 'source')}"
    kinds = [f"{kind} {count(n)}" for kind, n in found.counts().items()]
    told = [f"{plural(found.n, 'row')}{sources}; found: {listed(kinds) or 'nothing'}"]
    least = [(part, size) for part, size in found.detectable.items() if size]
    if sees := [f"{points(size, sign=False)} points at {part:.0%}" for part, size in least]:
        told.append(f"it finds {listed(sees)} disagreement, 4 times in 5")
    seen = "leaks" if any("leak" in kind for kind in found.counts()) else "no leak"
    searched = f"{seen} from {Path(found.train or '').name} found"
    told.append(searched if found.train else "no training file was searched for leaks")
    return "; ".join(told)


def lines(found: Checkup) -> list[str]:
    """The whole checkup for a terminal: what the set is and whether it is fit, then a line a finding."""
    fit = "Fit to test with." if found.healthy else "Mend it before a run."
    told = [f"{found.path}: {title(found)}. {fit}"]
    told += [] if found.candidates is None else [f"{undeclared(found)}."]
    for row in rows(found):
        where = f" (line {row['lines']})" if row["lines"] else ""
        told.append(f"  {row['kind']}{where}: {row['what']}; {row['how to mend']}")
    return told


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
    if one.problem:
        return one.problem.problem, one.problem.remedy
    case = one.kind
    if one.kind == "size":
        case = one.about if one.about == "pairs" else "few" if one.n < doctor.FEW else "many"
    numbers = {
        "n": count(one.n),
        "line": one.n,
        "about": one.about,
        "inputs": len(one.lines),
        "rows": plural(one.n, "row"),
        "of": plural(one.of, "row"),
        "pairs": plural(one.n, "pair"),
        "share": share(one.n, one.of),
        "some": listed([repr(value[:40]) for value in one.examples]),
        "to_tell": doctor.FEW_IN_SLICE - one.n,
        "to_few": doctor.FEW - one.n,
        "to_usual": doctor.USUAL - one.n,
    }
    what, remedy = (told.format_map(numbers) for told in _SAID[case])
    return what, remedy


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
        fields = []
        for name, values in found.slices.items():
            more = len(values) - _MOST_NAMED
            named = [f"{value} {count(n)}" for value, n in [*values.items()][:_MOST_NAMED]]
            named += [f"and {more} more"] if more > 0 else []
            fields.append(f"{name} ({', '.join(named)})")
        declared = _quoted(",".join(found.slices))
        told = [f"Rows have {listed(fields)}; to cut by: slice_fields: {declared}"]
    for name, n in found.clusters.items():
        count_as = f"rows of one source count together: cluster_field: {_quoted(name)}"
        told.append(f"Rows share {name} ({n} values); {count_as}")
    if found.expects in _EXPECTED:
        told.append(_EXPECTED[found.expects])
    if found.checker:
        json_said = "are JSON; put a JSON schema beside the test file"
        looks = {doctor.SCHEMA: json_said, doctor.ICD: "are codes of ICD-10-CM"}
        like = looks.get(found.checker, f"are one of {found.n_labels} labels")
        told.append(f"Expected answers {like}: checker: {_quoted(found.checker)}")
    return [visible(" ".join(one.splitlines())) for one in told]


def _quoted(text: str) -> str:
    """As study.yaml takes it."""
    return json.dumps(text, ensure_ascii=False)
