"""One page from a run's folder: the decision first, then every chapter, then how it was made."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.conversation import conversation_css
from evalkit.decision import Decision, read_decision
from evalkit.decision.rules import NAMES, STAGES
from evalkit.decision.words import VERDICTS
from evalkit.files import write_whole
from evalkit.redaction import without_secrets
from evalkit.report import clean, manifest
from evalkit.report.notebook import title_of

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
_SLOT = re.compile(rf"<!--({FIRST_SCREEN}|rest)-->")
_DATA = re.compile(r'data:image/[^"]*')
_ANSWER = re.compile(r'<p class="ek-answer( ek-simulated)?">.*?</p>', re.DOTALL)
_CHIP = re.compile(r'<[^<>]*class="[^"<>]*\bek-chip-simulated\b')


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One notebook as a section of the page."""

    id: str
    number: str
    short: str
    title: str
    body: str
    first: str
    error: str | None

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
    text = _page(record, chapters, None if record["failed"] else decision, folder)
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
    first, rest = _slots(body)
    if not lift:
        first, rest = "", _SLOT.sub("", body)
    answers = [found[0] for found in _ANSWER.finditer(rest)]
    rest = "".join(answers) + _ANSWER.sub("", rest)
    number, _, name = notebook.stem.partition("_")
    return Chapter(
        id=notebook.stem,
        number=number.lstrip("0"),
        short=name.replace("_", " ").capitalize().replace("Ab ", "A/B "),
        title=title_of(notebook),
        body=clean.with_heading_levels(rest),
        first=first,
        error=made["error"],
    )


def _slots(body: str) -> tuple[str, str]:
    parts = _SLOT.split(body)
    pairs = list(zip(parts[1::2], parts[2::2], strict=True))
    first, rest = (
        "".join(part for slot, part in pairs if slot == wanted) for wanted in (FIRST_SCREEN, "rest")
    )
    return first, parts[0] + rest


@cache
def _exporter() -> HTMLExporter:
    from nbconvert import HTMLExporter

    made = HTMLExporter(
        template_name=_TEMPLATE.name, extra_template_basedirs=[str(_TEMPLATE.parent)]
    )
    made.register_filter("slot", lambda tags: FIRST_SCREEN if FIRST_SCREEN in tags else "rest")
    for name in ("prose", "plain", "printed", "shown"):
        made.register_filter(name, getattr(clean, name))
    return made


def _page(
    record: Mapping[str, Any], chapters: list[Chapter], decision: Decision | None, folder: Path
) -> str:
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    page = Environment(loader=FileSystemLoader(_TEMPLATE), autoescape=True).get_template(
        "page.html.j2"
    )
    evidence = _evidence(folder)
    sections = [
        {name: Markup(value) if name == "body" else value for name, value in _fields(one)}  # noqa: S704 - cleaned
        for one in chapters
    ]
    return page.render(
        css=Markup((_TEMPLATE / "page.css").read_text(encoding="utf-8") + conversation_css()),  # noqa: S704 - our own
        title=str(record["parameters"].get("title") or record["study"]),
        about=_about(record, decision, evidence),
        failed=record["failed"],
        sound=[one.short for one in chapters if not one.error],
        first=Markup("".join(one.first for one in chapters) if decision else ""),  # noqa: S704 - cleaned
        chapters=sections,
        facts=_facts(record, decision, evidence),
        tables=[
            {"summary": name, "body": Markup(body)}  # noqa: S704 - escaped
            for name, body in _tables(record, evidence).items()
        ],
        version=record["versions"]["evalkit"],
        run=record["run"],
        notes=[wording.visible(one) for one in record.get("notes", ())],
        made_at=record["made_at"],
        **_verdict(decision, bool(record["failed"])),
    )


def _fields(one: Chapter) -> Iterable[tuple[str, Any]]:
    names = ("id", "number", "short", "title", "body", "error", "simulated")
    return ((name, getattr(one, name)) for name in names)


def _verdict(decision: Decision | None, failed: bool) -> dict[str, Any]:
    if decision is None:
        words = "This report is incomplete" if failed else "No decision was made in this run"
        return {
            "headline": f"{words}.",
            "verdict_word": words,
            "kind": "unsure",
            "deck": "",
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
        *([f"{wording.count(n)} held-out {comparison['unit']}"] if n else []),
        *([f"stage: {STAGES[decision.stage]}"] if decision else []),
        record["made_at"][:16].replace("T", " ") + " UTC",
    ]


def _evidence(folder: Path) -> dict[str, Any]:
    found = (folder / name for name in ("comparison.json", "preference.json", "ab_test.json"))
    return {
        path.name: json.loads(path.read_text(encoding="utf-8")) for path in found if path.is_file()
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


def _flat(value: Any) -> str:
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
