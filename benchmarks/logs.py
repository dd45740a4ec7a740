"""Seconds and memory to read a log of Inspect with 10,000 samples: evalkit, and Inspect's own reader where it is installed.

python benchmarks/logs.py --log tests/interop/logs/inspect_base.json --samples 10000 --inspect PYTHON_WITH_INSPECT
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

OURS = "from evalkit.interop.logs import read_log; n = len(read_log(path).rows)"
THEIRS = "from inspect_ai.log import read_eval_log; n = len(read_eval_log(path).samples)"
FRAME = """
import re, sys, time
path = sys.argv[1]
began = time.perf_counter()
{code}
peak = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(f"{{time.perf_counter() - began:.2f}} s, {{peak:.0f}} MB, {{n:,}} samples")
"""


def written(log: Path, n: int, folder: Path) -> list[Path]:
    """The log with as many samples, in both of its forms."""
    record = json.loads(log.read_text(encoding="utf-8"))
    few = record["samples"]
    record["samples"] = [{**few[i % len(few)], "id": f"s{i}", "epoch": 1} for i in range(n)]
    record["reductions"] = []
    plain, packed = folder / "big.json", folder / "big.eval"
    plain.write_text(json.dumps(record, indent=2), encoding="utf-8")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in record.pop("samples"):
            archive.writestr(f"samples/{one['id']}_epoch_1.json", json.dumps(one))
        archive.writestr("header.json", json.dumps(record))
    return [plain, packed]


def measured(python: str, code: str, path: Path) -> str:
    """One reading in a process of its own, imports included."""
    command = [python, "-c", FRAME.format(code=code), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, default=Path("tests/interop/logs/inspect_base.json"))
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--inspect", default="", metavar="PYTHON", help="one that has inspect_ai")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for path in written(options.log, options.samples, Path(folder)):
            print(f"{path.suffix}, {path.stat().st_size / 2**20:.0f} MB")
            print(f"  evalkit  {measured(sys.executable, OURS, path)}")
            if options.inspect:
                print(f"  Inspect  {measured(options.inspect, THEIRS, path)}")


if __name__ == "__main__":
    main()
