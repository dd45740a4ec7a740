"""Writes test.jsonl: invented dictations over several turns, and the note as JSON that should come of each.

    python data/notes/build_data.py [--out FOLDER]

Eight invented patients (patients.csv) with four visits each; every word is written for this study, nobody is described. The
rows carry no id, as many real files don't, and visits of one patient share a cluster.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

SYSTEM = (
    "You turn dictations into notes. Answer with one JSON object and nothing else: "
    '"summary" (a paragraph), "problems" (a list of texts) and "plan" (a list of texts).'
)
# the course and the next step; from the third visit on the higher dose
VISITS = (
    ("This is the first visit.", "blood tests and a visit in two weeks"),
    (
        "At the second visit the blood tests are normal and the complaint is unchanged.",
        "the same treatment for four weeks",
    ),
    ("At the third visit the complaint is clearly less.", "a check in three months"),
    (
        "At the fourth visit the complaint is back after the tablets were left out for ten days.",
        "a visit in one week",
    ),
)


def dictated(patient: list[str], visit: int) -> tuple[str, str]:
    """A dictation and the note that should come of it."""
    department, who, complaint, finding, problem, drug, first_dose, later_dose, advice = patient
    (course, step), dose = VISITS[visit], later_dose if visit > 1 else first_dose
    dictation = (
        f"Dictation, {department}. {who.capitalize()} reports {complaint}. {course} On examination there is {finding}. "
        f"Assessment: {problem}. {drug.capitalize()} {dose}. Advice: {advice}. Next: {step}."
    )
    note = {
        "summary": f"{who.capitalize()} was seen in {department} because of {complaint}. {course} The examination showed "
        f"{finding}. Taken together this is {problem}. Treatment is {drug}, {dose}, and the patient was told to {advice}. "
        f"What was found and what it means were explained, questions were answered, and {step} was agreed.",
        "problems": [problem],
        "plan": [f"{drug}, {dose}", advice, step],
    }
    return dictation, json.dumps(note)


def row(number: int, patients: list[list[str]], visit: int) -> dict:
    """A conversation: another patient's note, from the third visit on also this patient's last one, then the one asked for."""
    earlier = [dictated(patients[(number + 1) % len(patients)], 0)]
    if visit > 1:
        earlier.append(dictated(patients[number], visit - 1))
    turns = [{"role": "system", "content": SYSTEM}]
    for dictation, note in [*earlier, dictated(patients[number], visit)]:
        turns += [{"role": "user", "content": dictation}, {"role": "assistant", "content": note}]
    asked = f"{len(earlier) + 1} turns"
    return {
        "messages": turns,
        "metadata": {
            "patient": f"P{number + 1:02d}",
            "department": patients[number][0],
            "turns": asked,
        },
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    with Path(__file__).with_name("patients.csv").open(encoding="utf-8", newline="") as file:
        _, *patients = csv.reader(file)
    rows = [
        row(number, patients, visit)
        for number in range(len(patients))
        for visit in range(len(VISITS))
    ]
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows)
    (parser.parse_args().out / "test.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
