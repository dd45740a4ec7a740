"""CPU seconds of `evalkit run STUDY`, its page included, beside a cold papermill call for each notebook, in one run.

Usage: python benchmarks/chain.py [STUDY]
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAPERMILL = [sys.executable, "-m", "papermill", "-k", "python3", "--no-progress-bar"]


def cpu_seconds(commands: list[list[str]]) -> tuple[float, float]:
    """CPU and wall-clock seconds of commands run one after another, with everything they start and wait for."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for command in commands:
        subprocess.run(
            command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        time.monotonic() - began,
    )


def main(study: str = "icd10") -> None:
    for name in (
        "OPENAI_BASE_URL",
        "OPENAI_API_KEY",
    ):  # recorded answers only: nobody measures a model here
        os.environ.pop(name, None)
    books = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    file = ROOT / "data" / study / "study.yaml"
    with tempfile.TemporaryDirectory() as folder:
        cold = [[*PAPERMILL, str(book), f"{folder}/{book.name}", "-f", str(file)] for book in books]
        ways = {
            "papermill, cold, one after another, no page": cold,
            "evalkit run --cold, two at a time, page included": [
                [sys.executable, "-m", "evalkit", "run", study, "--cold"]
            ],
            "evalkit run, forked kernels, page included": [
                [sys.executable, "-m", "evalkit", "run", study]
            ],
        }
        rows = {name: cpu_seconds(commands) for name, commands in ways.items()}
    first = next(iter(rows.values()))[0]
    print(f"{len(books)} notebooks of {study}\n{'':50} CPU s  wall s  ratio")
    for name, (cpu, wall) in rows.items():
        print(f"{name:50} {cpu:5.1f}  {wall:6.1f}   {cpu / first:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
