"""One page from a run's folder in three depths: the decision, a screen a chapter, and everything else folded away."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.conversation import conversation_css
from evalkit.decision import Decision, read_decision
from evalkit.decision.findings import CONFIRMED, UNCONFIRMED
from evalkit.decision.layers import MISSING
from evalkit.decision.record import VERDICTS
from evalkit.decision.rules import NAMES, STAGES
from evalkit.files import read_record, write_whole
from evalkit.redaction import without_secrets
from evalkit.report import clean, manifest
from evalkit.report.notebook import title_of
from evalkit.settings import retirement, settings_of

if TYPE_CHECKING:
    from nbconvert import HTMLExporter

FILE = "report.html"
FIRST_SCREEN = "first-screen"
_TEMPLATE = Path(__file__).with_name("template")
_KINDS = {"ship": "better", "don't ship": "worse"}
_TITLES = {"benchmark": "1 Benchmark", "human": "2 Human rating", "ab_test": "3 A/B test"}
_LOOK_COLUMNS = {
    "look": "Look",
    "n": "Users",
    "estimate": "Difference",
    "ci_low": "from",
    "ci_high": "to",
    "verdict": "Verdict",
}
_LAYERS = {  # whose evidence a chapter makes or reads; the last of a layer is where its row leads
    "benchmark": ("02_regressions", "01_benchmark"),
    "human": ("03_rate", "04_preference"),
    "ab_test": ("05_plan", "06_ab_test"),
}
_PREPARES = ("03_rate", "05_plan")  # chapters that have something to say before there is evidence
_OPEN, _NUMBERS = ("picture", "stopped", "limits"), "numbers"
_SLOT = re.compile(rf"<!--({'|'.join([FIRST_SCREEN, *_OPEN, _NUMBERS, 'rest'])})-->")
_LIMITS = re.compile(r"\s*#+ *What this cannot tell you\b")
_DATA = re.compile(r'data:image/[^"]*')
_ANSWER = re.compile(r'<p class="ek-answer( ek-simulated)?">.*?</p>', re.DOTALL)
_CHIP = re.compile(r'<[^<>]*class="[^"<>]*\bek-chip-simulated\b')


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One notebook as a section of the page.

    Attributes:
        answer: What it found.
        picture: The one picture that stands open below the answer, and why it stopped if it did.
        limits: What it cannot tell.
        rest: Everything else.
        first: What it puts on the first screen.
    """

    id: str
    number: str
    short: str
    title: str
    answer: str
    picture: str
    limits: str
    rest: str
    first: str
    error: str | None

    @property
    def body(self) -> str:
        """All of it but what stands on the first screen."""
        return self.answer + self.picture + self.limits + self.rest

    @property
    def numbers(self) -> str:
        """Where the table stands that is behind the decision's row; "" without one."""
        return _anchor(self.id) if f'id="{_anchor(self.id)}"' in self.rest else ""

    @property
    def simulated(self) -> bool:
        """True when its answer rests on simulated raters or users; without an answer, when anything in it is simulated."""
        marks = _ANSWER.findall(self.body)
        return any(marks) if marks else _CHIP.search(self.body) is not None


def write_page(folder: Path) -> Path:
    """Writes `report.html` into a run's folder, from what stands there.

    Raises:
        DataError: The run has no manifest.
    """
    record = manifest.read(folder)
    chapters = list[Chapter]()
    for stem, made in record["chapters"].items():
        taken = any(one.first for one in chapters)
        chapters.append(chapter(folder / f"{stem}.ipynb", made, lift=not taken))
    decision = read_decision(folder) if (folder / "decision.json").is_file() else None
    sections = [_section(one, _lacking(decision).get(one.id)) for one in chapters]
    text = _page(record, chapters, sections, None if record["failed"] else decision, folder)
    page = wording.visible(without_secrets(_with_letters(clean.with_unique_names(text))))
    return write_whole(folder / FILE, page.encode())


def _with_letters(text: str) -> str:
    """The page with a font of the letters it uses, in both weights."""
    from evalkit.show import typeface

    letters = html.unescape(_DATA.sub("", text))
    fonts = typeface.css({400: letters, 700: letters}, reading=True)
    return text.replace("<style>", f"<style>{fonts}", 1)


def chapter(notebook: Path, made: Mapping[str, Any], *, lift: bool = True) -> Chapter:
    """Renders one executed notebook: its answer first, code left out.

    Args:
        notebook: The executed notebook.
        made: What the manifest knows of it.
        lift: Whether its first-screen parts stand apart; one chapter's do, and a copy of it keeps its own.
    """
    body, _ = _exporter().from_filename(str(notebook))
    parts = _slots(body)
    first = "".join(text for slot, text in parts if slot == FIRST_SCREEN and lift)
    picture = "".join(text for slot, text in parts if slot in {"picture", "stopped"})
    limits = "".join(text for slot, text in parts if slot == "limits")
    rest = ""
    for slot, text in parts:
        if slot == _NUMBERS and text.strip() and f'id="{_anchor(notebook.stem)}"' not in rest:
            rest += _behind(notebook.stem, text)
        elif slot not in _OPEN and (slot != FIRST_SCREEN or not lift):
            rest += text
    answers = [found[0] for found in _ANSWER.finditer(rest)]
    number, _, name = notebook.stem.partition("_")
    return Chapter(
        id=notebook.stem,
        number=number.lstrip("0"),
        short=name.replace("_", " ").capitalize().replace("Ab ", "A/B "),
        title=title_of(notebook),
        answer="".join(answers),
        picture=picture,
        limits=f'<div class="limits">{clean.with_heading_levels(limits)}</div>' if limits else "",
        rest=clean.with_heading_levels(_ANSWER.sub("", rest)).strip(),
        first=first,
        error=made["error"],
    )


def _slots(body: str) -> list[tuple[str, str]]:
    """Where each output and text belongs, and what it is."""
    parts = _SLOT.split(body)
    return [("rest", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]


def _slot(cell: Mapping[str, Any], stopped: bool = False) -> str:
    """An output of a cell stands where the cell's tag says; failures and limits stand open by themselves."""
    if stopped or (cell["cell_type"] == "markdown" and _LIMITS.match(cell["source"])):
        return "stopped" if stopped else "limits"
    tags = cell["metadata"].get("tags", [])
    return next((one for one in (FIRST_SCREEN, "picture", _NUMBERS) if one in tags), "rest")


def _behind(stem: str, markup: str) -> str:
    """The table behind a row of the first screen, to be led to, and the way back."""
    back = '<p class="back"><a href="#decision">Back to the decision</a></p>'
    return f'<div class="numbers" id="{_anchor(stem)}">{markup}{back}</div>'


def _anchor(stem: str) -> str:
    return f"{html.escape(stem)}-{_NUMBERS}"


@cache
def _exporter() -> HTMLExporter:
    from nbconvert import HTMLExporter

    made = HTMLExporter(
        template_name=_TEMPLATE.name, extra_template_basedirs=[str(_TEMPLATE.parent)]
    )
    made.register_filter("slot", _slot)
    for name in ("prose", "plain", "printed", "shown"):
        made.register_filter(name, getattr(clean, name))
    return made


def _page(
    record: Mapping[str, Any],
    chapters: list[Chapter],
    sections: list[dict[str, Any]],
    decision: Decision | None,
    folder: Path,
) -> str:
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    page = Environment(loader=FileSystemLoader(_TEMPLATE), autoescape=True).get_template(
        "page.html.j2"
    )
    evidence = _evidence(folder)
    return page.render(
        css=Markup((_TEMPLATE / "page.css").read_text(encoding="utf-8") + conversation_css()),  # noqa: S704 - our own
        title=str(record["parameters"].get("title") or record["study"]),
        about=_about(record, decision, evidence),
        failed=record["failed"],
        sound=[one.short for one in chapters if not one.error],
        first=Markup("".join(one.first for one in chapters) if decision else ""),  # noqa: S704 - cleaned
        chapters=sections,
        rows=_rows(decision, chapters),
        facts=_facts(record, decision, evidence),
        tables=[
            {"summary": name, "body": Markup(body)}  # noqa: S704 - escaped
            for name, body in _tables(record, evidence).items()
        ],
        version=record["versions"]["evalkit"],
        run=record["run"],
        notes=[
            wording.visible(one)
            for one in (*record.get("notes", ()), *_changes(decision, UNCONFIRMED))
        ],
        notices=[
            wording.visible(one) for one in (*_changes(decision, CONFIRMED), *_retires(record))
        ],
        head=record.get("ledger", ""),
        made_at=record["made_at"],
        **_verdict(decision, record),
    )


def _section(one: Chapter, lacks: Mapping[str, str] | None) -> dict[str, Any]:
    """A chapter's two depths: what stands open, and what is folded away and counted.

    A layer without evidence says what is missing instead; a chapter that stopped says why and no more.
    """
    from markupsafe import Markup

    lacks = None if one.error else lacks
    is_bare = bool(lacks) and one.id not in _PREPARES
    told = "" if is_bare else one.answer
    if not lacks:
        told += one.picture + ("" if one.error else one.limits)
    parts = (one.answer, one.picture, one.limits, one.rest)
    folded = "".join(part for part in parts if part not in told)
    counts = {name: folded.count(f"<{name}") for name in ("figure", "table")}
    return {
        **{
            name: getattr(one, name)
            for name in ("id", "number", "short", "title", "error", "simulated")
        },
        "lacks": lacks if is_bare else None,
        "found": _first_sentence(one.answer),
        "told": Markup(told),  # noqa: S704 - cleaned
        "folded": Markup(folded),  # noqa: S704 - cleaned
        "inside": wording.listed([wording.plural(n, name) for name, n in counts.items() if n]),
    }


def _retires(record: Mapping[str, Any]) -> list[str]:
    """That the base model retires soon, counted from the day of the run."""
    day = datetime.fromisoformat(record["made_at"]).date()
    told = retirement(settings_of(record["parameters"]), day)
    return [f"{told}."] if told else []


def _changes(decision: Decision | None, rule: str) -> list[str]:
    """What was changed after a result, with a reason or without one: the first screen says it."""
    return [
        f"{NAMES[layer.layer].capitalize().replace('A/b', 'A/B')}: {one.text}."
        for layer in (decision.layers if decision else ())
        for one in layer.findings
        if one.rule == rule
    ]


def _first_sentence(answer: str) -> str:
    """How an answer begins, for the list of contents."""
    said = html.unescape(re.sub(r"<[^>]*>", "", answer))
    return re.split(r"(?<=[.;]) ", said, maxsplit=1)[0].rstrip(";")


def _rows(decision: Decision | None, chapters: list[Chapter]) -> list[dict[str, str]]:
    """The first screen's rows: what each says, its chapter, and the table behind it."""
    if decision is None:
        return []
    from evalkit.show.decision import rows_of

    known = {one.id: one for one in chapters}
    led = {_TITLES[layer]: known.get(stems[-1]) for layer, stems in _LAYERS.items()}
    told = [
        {
            "name": row.name,
            "at": one.numbers or one.id,
            "word": row.word.replace("'", "’"),
            "kind": row.kind,
        }
        for row in rows_of(decision)
        if (one := led.get(row.name, known.get(_LAYERS["benchmark"][0])))
    ]
    together = [one.numbers for one in chapters if one.first and one.numbers]
    return told + [{"name": "All in numbers", "at": at, "word": ""} for at in together]


def _lacking(decision: Decision | None) -> dict[str, dict[str, str]]:
    """Chapters whose layer has no evidence yet, with what is missing and its price."""
    lacking = {}
    for layer in decision.layers if decision else ():
        if layer.verdict == MISSING or not layer.n:
            told = {"reason": layer.reason}
            for missing in layer.missing[:1]:
                told |= {"action": missing.action, "price": missing.price}
            lacking |= dict.fromkeys(_LAYERS[layer.layer], told)
    return lacking


def _verdict(decision: Decision | None, record: Mapping[str, object]) -> dict[str, Any]:
    if decision is None:
        failed, said = bool(record["failed"]), record.get("headline")
        words = "This report is incomplete" if failed else "No decision was made in this run"
        return {
            "headline": f"{words}." if failed or not said else said,
            "verdict_word": words,
            "kind": "unsure",
            "deck": record.get("deck", ""),
            "missing": [],
        }
    missing = [
        {**one, "name": _TITLES[one["layer"]], "word": one["word"].replace("'", "’")}
        for one in decision.missing
    ]
    return {
        "headline": decision.headline,
        "verdict_word": VERDICTS[decision.verdict],
        "kind": _KINDS.get(decision.verdict, "unsure"),
        "deck": decision.deck,
        "missing": missing[:5],
    }


def _about(
    record: Mapping[str, Any], decision: Decision | None, evidence: Mapping[str, Any]
) -> list[str]:
    comparison = evidence.get("comparison.json", {})
    models = comparison.get("models") or (decision.models if decision else {})
    n = (comparison.get("primary") or {}).get("n")
    return [
        *(
            [f"{models['fine_tuned']} against {models['base']}"]
            if {"base", "fine_tuned"} <= set(models)
            else []
        ),
        *(
            [wording.plural(n, f"held-out {str(comparison['unit']).removesuffix('s')}")]
            if n
            else []
        ),
        *([f"stage: {STAGES[decision.stage]}"] if decision else []),
        record["made_at"][:16].replace("T", " ") + " UTC",
    ]


def _evidence(folder: Path) -> dict[str, Any]:
    found = (folder / name for name in ("comparison.json", "preference.json", "ab_test.json"))
    return {
        path.name: read_record(
            path, dict[str, Any], said="not a record of evidence", remedy="run its chapter again"
        )
        for path in found
        if path.is_file()
    }


def _facts(
    record: Mapping[str, Any], decision: Decision | None, evidence: Mapping[str, Any]
) -> dict[str, str]:
    bound = evidence.get("comparison.json", {}).get("bound_to", {})
    plan = evidence.get("ab_test.json", {}).get("details", {}).get("plan_hash")
    seeds = {name: value for name, value in record["parameters"].items() if name.endswith("seed")}
    facts = {
        "Study and run": f"{record['study']}, {record['run']}",
        **{f"sha256 of {name.replace('_', ' ')}": str(value) for name, value in bound.items()},
        "A/B plan": f"sha256 {plan}" if plan else "",
        "Simulated": wording.listed([NAMES[layer] for layer in decision.simulated])
        if decision
        else "",
        "Seeds": ", ".join(f"{name} {value}" for name, value in seeds.items()),
        **{
            f"Answers, {name.removesuffix('_journal').replace('_', '-')}": _flat(one)
            for name, one in record["journals"].items()
        },
        "Duration": f"{record['seconds']:.0f} s, {wording.plural(len(record['chapters']), 'chapter')}",
        "Versions": ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
        "Machine": record["platform"],
    }
    return {name: wording.visible(value) for name, value in facts.items() if value}


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(
            f"{str(name).replace('_', ' ')}: {_flat(one)}"
            for name, one in value.items()
            if one not in (None, {}, "")
        )
    return wording.number(value) if isinstance(value, float) else str(value)


def _tables(record: Mapping[str, Any], evidence: Mapping[str, Any]) -> dict[str, str]:
    from evalkit.show import table

    parameters = [
        {"name": name, "value": str(value)} for name, value in sorted(record["parameters"].items())
    ]
    files = [{"file": name, "sha256": value} for name, value in record["files"].items()]
    times = [
        {"chapter": name, "seconds": f"{made['seconds']:.1f}"}
        for name, made in record["chapters"].items()
    ]
    costs = evidence.get("comparison.json", {}).get("details", {}).get("costs") or {}
    looks = evidence.get("ab_test.json", {}).get("details", {}).get("looks") or []
    made = {
        "Parameters": table(parameters, caption="Parameters"),
        "Files and their hashes": table(files, caption="Files"),
        "Duration of each chapter": table(times, caption="Duration", numeric=("seconds",)),
    }
    if costs and all(isinstance(one, Mapping) for one in costs.values()):
        spent = [{"answers of": name.replace("_", "-"), **one} for name, one in costs.items()]
        made["Cost of the answers"] = table(
            spent, caption="Tokens, waiting time and money by model"
        )
    if looks and all(isinstance(look, Mapping) for look in looks):
        made["Looks at the A/B test"] = table(
            looks, caption="Looks", columns=_LOOK_COLUMNS, numeric=tuple(_LOOK_COLUMNS)
        )
    return {name: one.body for name, one in made.items()}
