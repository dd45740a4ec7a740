"""One page from a run's folder in three depths: the decision, a screen a chapter, and everything else folded away."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from evalkit.conversation import conversation_css
from evalkit.decision import Decision, read_evidence
from evalkit.decision.layers import MISSING
from evalkit.decision.rules import CONFIRMED, NAMES, STAGES, UNCONFIRMED
from evalkit.errors import DataError
from evalkit.evidence import ABDetails, Evidence, details_of
from evalkit.files import JsonObject, write_whole
from evalkit.records import Layer
from evalkit.report import clean, manifest
from evalkit.report.manifest import Manifest
from evalkit.report.notebook import Executed
from evalkit.show import verdict
from evalkit.show.findings import found
from evalkit.show.lacking import in_words
from evalkit.study import retirement, settings_of
from evalkit.wording import listed, minute, plural, visible, without_secrets

if TYPE_CHECKING:
    from nbconvert import HTMLExporter

FILE = "report.html"
FIRST_SCREEN = "first-screen"
_TEMPLATE = Path(__file__).with_name("template")
_KINDS = {"ship": "better", "don't ship": "worse"}
_TITLES = {"benchmark": "1 Benchmark", "human": "2 Human rating", "ab_test": "3 A/B test"}
_LAYERS = {  # whose evidence a chapter makes or reads; the last of a layer is where its row leads
    "benchmark": ("02_regressions", "01_benchmark"),
    "human": ("03_rate", "04_preference"),
    "ab_test": ("05_plan", "06_ab_test"),
}
_PREPARES = ("03_rate", "05_plan")  # chapters that have something to say before there is evidence
_NUMBERS = "numbers"
_SLOT = re.compile(rf"<!--({FIRST_SCREEN}|picture|limits|{_NUMBERS}|rest)-->")
_LIMITS = re.compile(r"\s*#+ *What this cannot tell you\b")
_DATA = re.compile(r'data:image/[^"]*')
_ANSWER = re.compile(r'<p class="ek-answer( ek-simulated)?">.*?</p>', re.DOTALL)
_CHIP = re.compile(r'<[^<>]*class="[^"<>]*\bek-chip-simulated\b')


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One notebook as a section of the page.

    Attributes:
        id: The notebook's stem, such as `01_benchmark`.
        answer: What it found.
        picture: The one picture that stands open below the answer, and why it stopped if it did.
        limits: What it cannot tell.
        rest: Everything else.
        numbers: Where in it the table stands that is behind the decision's row.
        first: What it puts on the first screen.
        lacking: Where its layer has no evidence, what is missing and its price.
    """

    id: str
    title: str
    answer: str
    picture: str
    limits: str
    rest: str
    first: str
    error: str | None
    numbers: str = ""
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def number(self) -> str:
        """As it is counted."""
        return self.id.partition("_")[0].lstrip("0")

    @property
    def short(self) -> str:
        """Its file's name in words."""
        return self.id.partition("_")[2].replace("_", " ").capitalize().replace("Ab ", "A/B ")

    @property
    def body(self) -> str:
        """All of it but what stands on the first screen."""
        return self.answer + self.picture + self.limits + self.rest

    @property
    def simulated(self) -> bool:
        """True when its answer rests on simulated raters or users; without an answer, when anything in it is simulated."""
        marks = _ANSWER.findall(self.body)
        return any(marks) if marks else _CHIP.search(self.body) is not None

    @property
    def lacks(self) -> Mapping[str, str]:
        """What is told in place of an answer; a chapter that stopped says why instead."""
        return {} if self.error or self.id in _PREPARES else self.lacking

    @property
    def found(self) -> str:
        """How its answer begins, for the list of contents."""
        said = html.unescape(re.sub(r"<[^>]*>", "", self.answer))
        return re.split(r"(?<=[.;]) ", said, maxsplit=1)[0].rstrip(";")

    @property
    def told(self) -> Markup:
        """What stands open: without evidence its answer at most, and no limits once it stopped."""
        told = "" if self.lacks else self.answer
        if self.error or not self.lacking:
            told += self.picture + ("" if self.error else self.limits)
        return Markup(told)  # noqa: S704 - cleaned

    @property
    def folded(self) -> Markup:
        """What is folded away."""
        parts = (self.answer, self.picture, self.limits, self.rest)
        return Markup("".join(part for part in parts if part not in self.told))  # noqa: S704 - cleaned


def write_page(folder: Path) -> Path:
    """Writes `report.html` into a run's folder, from what stands there.

    Raises:
        DataError: The run has no manifest, or its decision is damaged.
    """
    from jinja2 import Environment, FileSystemLoader

    from evalkit.show import style

    made = manifest.read(folder)
    decision = verdict.read(folder) if (folder / "decision.json").is_file() else None
    chapters = _chapters(folder, made, decision)
    if made.failed:
        decision = None
    try:
        evidence, lost = read_evidence(folder), ""
    except DataError as why:  # the page must still come
        evidence, lost = {}, f"hashes are missing here: {why}"
    day = datetime.fromisoformat(made.made_at).date()
    retires = retirement(settings_of(made.parameters), day)
    notices = [*_changes(decision, CONFIRMED), *([f"{retires}."] if retires else [])]
    environment = Environment(loader=FileSystemLoader(_TEMPLATE), autoescape=True)
    page = environment.get_template("page.html.j2").render(
        css=Markup((_TEMPLATE / "page.css").read_text(encoding="utf-8") + conversation_css()),  # noqa: S704 - our own
        title=str(made.parameters.get("title") or made.study),
        about=_about(made, decision, evidence.get("benchmark")),
        made=made,
        sound=[one.short for one in chapters if not one.error],
        first=Markup("".join(one.first for one in chapters) if decision else ""),  # noqa: S704 - cleaned
        chapters=chapters,
        rows=_rows(decision, chapters),
        facts=_facts(made, decision, evidence, lost),
        tables=_tables(made),
        notes=[visible(one) for one in (*made.notes, *_changes(decision, UNCONFIRMED))],
        notices=[visible(one) for one in notices],
        **_verdict(made, decision),
    )
    page = clean.with_unique_names(page)
    letters = html.unescape(_DATA.sub("", page))
    fonts = style.font_css({400: letters, 700: letters}, reading=True)
    page = page.replace("<style>", f"<style>{fonts}", 1)
    return write_whole(folder / FILE, visible(without_secrets(page)).encode())


def _chapters(folder: Path, made: Manifest, decision: Decision | None) -> list[Chapter]:
    """A run's chapters; where a layer has no evidence yet, its own say what is missing and its price."""
    lacking, chapters = dict[str, dict[str, str]](), list[Chapter]()
    for layer in decision.layers if decision else ():
        if layer.verdict == MISSING or not layer.n:
            told = {"reason": verdict.reason(layer)}
            for one in layer.missing[:1]:
                told |= in_words(one, layer)._asdict()
            lacking |= dict.fromkeys(_LAYERS[layer.layer], told)
    for stem, one in made.chapters.items():
        lift = not any(before.first for before in chapters)
        found = chapter(folder / f"{stem}.ipynb", one, lift=lift)
        chapters.append(replace(found, lacking=lacking.get(stem, {})))
    return chapters


def chapter(notebook: Path, made: Executed, *, lift: bool = True) -> Chapter:
    """Renders one executed notebook: its answer first, code left out.

    Args:
        notebook: The executed notebook.
        made: What the manifest knows of it.
        lift: Whether its first-screen parts stand apart; one chapter's do, and a copy of it keeps its own.
    """
    body, _ = _exporter().from_filename(str(notebook))
    before, *marked = _SLOT.split(body)
    parts, numbers = defaultdict[str, str](str, rest=before), ""
    for slot, text in zip(marked[::2], marked[1::2], strict=True):
        if slot == _NUMBERS and text.strip() and not numbers:
            numbers = f"{html.escape(notebook.stem)}-{_NUMBERS}"
            back = '<p class="back"><a href="#decision">Back to the decision</a></p>'
            parts["rest"] += f'<div class="numbers" id="{numbers}">{text}{back}</div>'
        elif slot in {"picture", "limits"} or (slot == FIRST_SCREEN and lift):
            parts[slot] += text
        else:
            parts["rest"] += text
    limits, rest = parts["limits"], parts["rest"]
    return Chapter(
        id=notebook.stem,
        title=made.title,
        answer="".join(found[0] for found in _ANSWER.finditer(rest)),
        picture=parts["picture"],
        limits=f'<div class="limits">{clean.with_heading_levels(limits)}</div>' if limits else "",
        rest=clean.with_heading_levels(_ANSWER.sub("", rest)).strip(),
        first=parts[FIRST_SCREEN],
        error=made.error,
        numbers=numbers,
    )


def _slot(cell: JsonObject, stopped: bool = False) -> str:
    """An output of a cell stands where the cell's tag says; failures and limits stand open by themselves."""
    if stopped:
        return "picture"
    if cell["cell_type"] == "markdown" and _LIMITS.match(cell["source"]):
        return "limits"
    tags = cell["metadata"].get("tags", [])
    return next((one for one in (FIRST_SCREEN, "picture", _NUMBERS) if one in tags), "rest")


@cache
def _exporter() -> HTMLExporter:
    from nbconvert import HTMLExporter

    made = HTMLExporter(
        template_name=_TEMPLATE.name, extra_template_basedirs=[str(_TEMPLATE.parent)]
    )
    made.register_preprocessor("nbconvert.preprocessors.CoalesceStreamsPreprocessor", enabled=True)
    made.register_filter("slot", _slot)
    for name in ("prose", "plain", "printed", "shown"):
        made.register_filter(name, getattr(clean, name))
    return made


def _changes(decision: Decision | None, rule: str) -> list[str]:
    """What was changed after a result, with a reason or without one: the first screen says it."""
    return [
        f"{NAMES[layer.layer].capitalize().replace('A/b', 'A/B')}: {found(one, layer)}."
        for layer in (decision.layers if decision else ())
        for one in layer.findings
        if one.rule == rule
    ]


def _rows(decision: Decision | None, chapters: list[Chapter]) -> list[dict[str, str]]:
    """The first screen's rows: what each says, its chapter, and the table behind it."""
    if decision is None:
        return []
    from evalkit.show.decision import rows_of

    known, rows = {one.id: one for one in chapters}, []
    led = {_TITLES[layer]: known.get(stems[-1]) for layer, stems in _LAYERS.items()}
    for row in rows_of(decision):
        if one := led.get(row.name, known.get(_LAYERS["benchmark"][0])):
            word = row.word.replace("'", "’")
            at = one.numbers or one.id
            rows.append({"name": row.name, "at": at, "word": word, "kind": row.kind})
    together = [one.numbers for one in chapters if one.first and one.numbers]
    return rows + [{"name": "All in numbers", "at": at, "word": ""} for at in together]


def _verdict(made: Manifest, decision: Decision | None) -> Mapping[str, object]:
    if decision is None:
        words = "This report is incomplete" if made.failed else "No decision was made in this run"
        said = "" if made.failed else made.headline
        told = {"headline": said or f"{words}.", "deck": made.deck, "missing": []}
        return told | {"verdict_word": words, "kind": "unsure"}
    missing = [
        {**one, "name": _TITLES[one["layer"]], "word": one["word"].replace("'", "’")}
        for one in verdict.missing(decision)
    ]
    return {
        "headline": verdict.headline(decision),
        "verdict_word": verdict.VERDICTS[decision.verdict],
        "kind": _KINDS.get(decision.verdict, "unsure"),
        "deck": verdict.deck(decision),
        "missing": missing[:5],
    }


def _about(made: Manifest, decision: Decision | None, benchmark: Evidence | None) -> list[str]:
    told = []
    models = (benchmark and benchmark.models) or (decision and decision.models) or {}
    if {"base", "fine_tuned"} <= set(models):
        told += [f"{models['fine_tuned']} against {models['base']}"]
    if benchmark and benchmark.primary and (n := benchmark.primary.n):
        told += [plural(n, f"held-out {benchmark.unit.removesuffix('s')}")]
    if decision:
        told += [f"stage: {STAGES[decision.stage]}"]
    return [*told, minute(made.made_at) + " UTC"]


def _facts(
    made: Manifest, decision: Decision | None, evidence: Mapping[Layer, Evidence], lost: str = ""
) -> dict[str, str]:
    bound = evidence["benchmark"].bound_to if "benchmark" in evidence else {}
    plan = details_of(evidence, ABDetails).plan_hash
    facts = {"Study and run": f"{made.study}, {made.run}", "Evidence": lost}
    facts |= {f"sha256 of {name.replace('_', ' ')}": value for name, value in bound.items()}
    facts["A/B plan"] = f"sha256 {plan}" if plan else ""
    facts["Simulated"] = listed([NAMES[layer] for layer in decision.simulated] if decision else [])
    for name, one in made.journals.items():
        facts[f"Answers, {name.removesuffix('_journal').replace('_', '-')}"] = _flat(one)
    facts["Duration"] = f"{made.seconds:.0f} s, {plural(len(made.chapters), 'chapter')}"
    facts["Versions"] = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    facts["Machine"] = made.platform
    return {name: visible(value) for name, value in facts.items() if value}


def _flat(value: object) -> str:
    """Names and values in words, down to the innermost."""
    if not isinstance(value, Mapping):
        return str(value)
    said = {name: one for name, one in value.items() if one not in (None, {}, "")}
    return "; ".join(f"{name.replace('_', ' ')}: {_flat(one)}" for name, one in said.items())


def _tables(made: Manifest) -> list[dict[str, object]]:
    from evalkit.show import table

    parameters = [
        {"name": name, "value": str(one)} for name, one in sorted(made.parameters.items())
    ]
    files = [{"file": name, "sha256": value} for name, value in made.files.items()]
    tables = {
        "Parameters": table(parameters, caption="Parameters"),
        "Files and their hashes": table(files, caption="Files"),
    }
    return [{"summary": name, "body": Markup(one.body)} for name, one in tables.items()]  # noqa: S704 - escaped
