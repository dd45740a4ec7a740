"""Records both models' answers to every row of a study's test set, the stable way: one question at a time, nothing cached.

    python data/icd10/serve.py -- python data/icd10/record.py [--study notes] [--model base] [--test FILE] [--out FOLDER]

A journal that is there already is continued, not begun anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import serve
import yaml

from evalkit import compute_metrics, run_automated_eval

DATA = Path(__file__).parents[1]
JOURNALS = {"base": "base.jsonl", "fine-tuned": "fine_tuned.jsonl"}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", choices=("icd10", "notes"), default="icd10")
    parser.add_argument("--model", choices=JOURNALS, action="append", help="default: both")
    parser.add_argument("--test", type=Path, help="another test file than the study's")
    parser.add_argument("--out", type=Path, help="another folder than the study's journals/")
    asked = parser.parse_args()
    folder = DATA / asked.study
    study = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    for model in asked.model or JOURNALS:
        results = run_automated_eval(
            model,
            asked.test or folder / study["test_file"],
            journal=(asked.out or folder / "journals") / JOURNALS[model],
            endpoint=study["endpoint"],
            max_tokens=study["max_tokens"],
            checker="none",
            concurrency=1,
            timeout_s=600,
            about=serve.about(model),
        )
        print(f"{model}: {compute_metrics(results)}")


if __name__ == "__main__":
    main()
