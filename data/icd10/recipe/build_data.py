"""Builds train.jsonl, val.jsonl and test.jsonl from the tabular list of ICD-10-CM; no model is involved.

    python data/icd10/recipe/build_data.py [--tabular FILE.xml] [--out FOLDER]

A note names one or two diagnoses by an inclusion term ("Cholera eltor"); a shortlist holds their codes with the official
descriptions and some distractors; the answer is the right line of the shortlist, or the two right ones.

Source: ICD-10-CM, April 2026 release, published by the National Center for Health Statistics (CDC) for free use; a work of the
government of the United States. The file is the one that the package simple-icd-10-cm 1.5.0 carries.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

SEED = 135
SYSTEM = (
    "You are a medical coder. Pick from the candidates the code of each diagnosis in the note. "
    "Reply with one line per diagnosis, CODE: description, in the order of the candidates, and nothing else."
)
CODE = re.compile(r"[A-Z]\d{2}\.\d{1,2}")
SHARES = {"test": 0.28, "val": 0.06}  # of the categories; the rest is for training
ROWS = {"train": 2800, "val": 100, "test": 350}  # with one diagnosis
TWO_DIAGNOSES = 150  # in the test set only: training never sees such a note
SHORTLIST = 4
LONGEST = 80  # characters of a description or a term


@dataclass(frozen=True, slots=True)
class Code:
    """A billable code, its description, the terms that mean it, and the chapter it stands in."""

    name: str
    description: str
    terms: tuple[str, ...]
    chapter: str

    @property
    def category(self) -> str:
        return self.name[:3]


@dataclass(frozen=True, slots=True)
class Term:
    """One diagnosis as a note words it, and its code."""

    text: str
    code: Code


def tabular_file() -> Path:
    """The tabular list inside simple-icd-10-cm, found without importing the package."""
    found = importlib.util.find_spec("simple_icd_10_cm")
    if found is None or not found.submodule_search_locations:
        raise SystemExit(
            "simple-icd-10-cm is not installed: pip install simple-icd-10-cm==1.5.0, or give --tabular FILE.xml"
        )
    return next((Path(found.submodule_search_locations[0]) / "data").glob("icd10c-tabular-*.xml"))


def read_codes(path: Path) -> list[Code]:
    """The billable codes with one or two digits after the point; those that need a seventh character are left out."""
    found = []
    for chapter in ElementTree.parse(path).getroot().iter("chapter"):
        name = f"{chapter.findtext('name')} {text_of(chapter.findtext('desc'))}"
        for section in chapter.iter("section"):
            for diagnosis in section.findall("diag"):
                found += leaves(diagnosis, name)
    return [
        code for code in found if CODE.fullmatch(code.name) and len(code.description) <= LONGEST
    ]


def leaves(diagnosis: ElementTree.Element, chapter: str) -> Iterator[Code]:
    """The codes below one entry of the list that have no codes below them."""
    if diagnosis.find("sevenChrDef") is not None:
        return
    below = diagnosis.findall("diag")
    for one in below:
        yield from leaves(one, chapter)
    if not below:
        terms = tuple(text_of(note.text) for note in diagnosis.iterfind("inclusionTerm/note"))
        yield Code(
            text_of(diagnosis.findtext("name")), text_of(diagnosis.findtext("desc")), terms, chapter
        )


def text_of(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip()


def read_terms(codes: list[Code]) -> list[Term]:
    """Terms that mean one code only, and say it in other words than its description."""
    meant = defaultdict(set)
    for code in codes:
        for term in code.terms:
            meant[term.lower()].add(code.name)
    described = {code.description.lower() for code in codes}
    return [
        Term(term, code)
        for code in codes
        for term in dict.fromkeys(code.terms)
        if len(meant[term.lower()]) == 1
        and term.lower() not in described
        and len(term) <= LONGEST
        and ";" not in term
    ]


def split_categories(codes: list[Code], seed: int) -> dict[str, set[str]]:
    """Every category in one split: no candidate of a test note stood in a training note."""
    categories = sorted({code.category for code in codes})
    random.Random(f"{seed} split").shuffle(categories)
    splits, start = {}, 0
    for name, share in SHARES.items():
        end = start + round(share * len(categories))
        splits[name], start = set(categories[start:end]), end
    return {**splits, "train": set(categories[start:])}


class Shortlists:
    """Draws distractors from the codes of one split."""

    def __init__(self, codes: list[Code]) -> None:
        self.codes = codes
        self.parts = {code.name: trigrams(code.description) for code in codes}

    def near(self, term: Term, n: int, taken: list[Code], dice: random.Random) -> list[Code]:
        """Codes of the same chapter, drawn from the six that read most like the term and its description."""
        wanted = trigrams(f"{term.text} {term.code.description}")
        others = [code for code in self.free(taken) if code.chapter == term.code.chapter]
        return dice.sample(
            sorted(others, key=lambda code: (-alike(wanted, self.parts[code.name]), code.name))[:6],
            n,
        )

    def far(self, terms: list[Term], n: int, taken: list[Code], dice: random.Random) -> list[Code]:
        """Codes of other chapters, drawn at random."""
        chapters = {term.code.chapter for term in terms}
        return dice.sample([code for code in self.free(taken) if code.chapter not in chapters], n)

    def free(self, taken: list[Code]) -> list[Code]:
        names, descriptions = {code.name for code in taken}, {code.description for code in taken}
        return [
            code
            for code in self.codes
            if code.name not in names and code.description not in descriptions
        ]


def trigrams(text: str) -> frozenset[str]:
    padded = f" {text.lower()} "
    return frozenset(padded[i : i + 3] for i in range(len(padded) - 2))


def alike(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


def one_diagnosis(
    row_id: str, number: int, term: Term, lists: Shortlists, dice: random.Random
) -> dict:
    """A note with one diagnosis among four candidates; by turns all distractors are near, one is, or none."""
    distance, n_near = (("near", 3), ("mixed", 1), ("far", 0))[number % 3]
    shown = [term.code, *lists.near(term, n_near, [term.code], dice)]
    shown += lists.far([term], SHORTLIST - len(shown), shown, dice)
    return row(
        row_id, "one diagnosis", ("line", "picker")[number // 3 % 2], distance, [term], shown, dice
    )


def two_diagnoses(
    row_id: str, number: int, pair: list[Term], lists: Shortlists, dice: random.Random
) -> dict:
    """A note with two diagnoses; in every other one both candidates are right, else one or two distractors are there."""
    shown = [term.code for term in pair]
    size = (2, 3, 2, 4)[number % 4]
    if size > 2:
        shown += lists.near(pair[0], 1, shown, dice)
    if size > 3:
        shown += lists.far(pair, 1, shown, dice)
    distance = {2: "none", 3: "near", 4: "mixed"}[size]
    return row(
        row_id, "two diagnoses", ("line", "picker")[number // 4 % 2], distance, pair, shown, dice
    )


def row(
    row_id: str,
    kind: str,
    style: str,
    distance: str,
    terms: list[Term],
    shown: list[Code],
    dice: random.Random,
) -> dict:
    """One line of a chat file; two upstream systems write their shortlists in two styles, in no order."""
    dice.shuffle(shown)
    right = [code for code in shown if code in {term.code for term in terms}]
    form = "{0.name}: {0.description}" if style == "line" else "- {0.description} ({0.name})"
    asked = "\n".join(
        [f"Note: {'; '.join(term.text for term in terms)}", "Candidates:", *map(form.format, shown)]
    )
    answer = "\n".join(f"{code.name}: {code.description}" for code in right)
    turns = {"system": SYSTEM, "user": asked, "assistant": answer}
    metadata = {
        "kind": kind,
        "style": style,
        "distractors": distance,
        "chance": round(1 / len(shown), 6) if kind == "one diagnosis" else 0.0,
        "n_candidates": len(shown),
        "position": [shown.index(code) + 1 for code in right],
        "chapter": terms[0].code.chapter,
        "categories": sorted({term.code.category for term in terms}),
    }
    return {
        "id": row_id,
        "messages": [{"role": r, "content": c} for r, c in turns.items()],
        "metadata": metadata,
    }


def usable(terms: list[Term], codes: list[Code]) -> list[Term]:
    """The terms of a split whose chapter has codes enough in it to draw near distractors from."""
    mine, sizes = {code.name for code in codes}, Counter(code.chapter for code in codes)
    return [term for term in terms if term.code.name in mine and sizes[term.code.chapter] >= 10]


def drawn(terms: list[Term], n: int, most: int, dice: random.Random) -> list[Term]:
    """`n` terms in random order, at most `most` of one code."""
    counts: Counter[str] = Counter()
    found = []
    for term in dice.sample(terms, len(terms)):
        counts[term.code.name] += 1
        if counts[term.code.name] <= most:
            found.append(term)
    if len(found) < n:
        raise SystemExit(f"{len(found)} terms are too few; {n} are needed")
    return found[:n]


def pairs(terms: list[Term]) -> Iterator[list[Term]]:
    """Neighbours from different chapters, each term once."""
    left = list(terms)
    while len(left) > 1:
        first = left.pop()
        match = next(
            (one for one in reversed(left) if one.code.chapter != first.code.chapter), None
        )
        if match is not None:
            left.remove(match)
            yield [first, match]


def build(path: Path, seed: int = SEED) -> dict[str, list[dict]]:
    """The rows of each split."""
    codes = read_codes(path)
    terms, splits, rows = read_terms(codes), split_categories(codes, seed), {}
    for split, categories in splits.items():
        dice = random.Random(f"{seed} {split}")
        lists = Shortlists([code for code in codes if code.category in categories])
        n_pairs = TWO_DIAGNOSES if split == "test" else 0
        mine = drawn(usable(terms, lists.codes), ROWS[split] + 3 * n_pairs, 3, dice)
        singles = mine[: ROWS[split]]
        rows[split] = [
            one_diagnosis(f"{split}-{n:04d}", n, term, lists, dice)
            for n, term in enumerate(singles)
        ]
        for n, (_, pair) in enumerate(
            zip(range(n_pairs), pairs(mine[ROWS[split] :]), strict=False), start=len(singles)
        ):
            rows[split].append(two_diagnoses(f"{split}-{n:04d}", n, pair, lists, dice))
        dice.shuffle(rows[split])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tabular",
        type=Path,
        help="the tabular list as XML, by default the one in simple-icd-10-cm",
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1])
    asked = parser.parse_args()
    for split, rows in build(asked.tabular or tabular_file()).items():
        path = asked.out / f"{split}.jsonl"
        path.write_text(
            "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8"
        )
        print(f"{path}: {len(rows)} rows, {dict(Counter(one['metadata']['kind'] for one in rows))}")


if __name__ == "__main__":
    main()
