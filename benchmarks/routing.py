"""What routing and logging add to a request, and how long 10 million assignments take.

python benchmarks/routing.py [--requests 2000] [--users 10000000] [--url postgresql://...]
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from evalkit.abtest.assignment import ABTestConfig, assign_variant, assign_variants
from evalkit.abtest.log import EventLog
from evalkit.abtest.routing import run_ab_request

REPLY = SimpleNamespace(
    choices=[SimpleNamespace(message=SimpleNamespace(content="fine"), finish_reason="stop")],
    usage=None,
)
CLIENT = SimpleNamespace(
    chat=SimpleNamespace(completions=SimpleNamespace(create=lambda **_: REPLY))
)
MESSAGES = [{"role": "user", "content": "hello"}]


def config(name: str = "sha256") -> ABTestConfig:
    return ABTestConfig("benchmark", "base", "tuned", 0.3, hash=name)


def per_request(n: int, log: EventLog | None) -> tuple[np.ndarray, float]:
    """Wall milliseconds of each request to a model that takes none, and CPU ms of the mean."""
    took, cpu = np.empty(n), time.process_time()
    for number in range(n):
        started = time.perf_counter()
        run_ab_request(f"user-{number}", MESSAGES, config(), CLIENT, log=log)
        took[number] = time.perf_counter() - started
    return took * 1000, (time.process_time() - cpu) / n * 1000


def show(what: str, took: np.ndarray, cpu: float) -> None:
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    print(f"{what:<44} {p50:8.3f} {p95:8.3f} {p99:8.3f} {cpu:8.3f}")


def threaded(n: int, log: EventLog, n_threads: int = 8) -> float:
    """Requests a second when threads share a log."""
    started = time.perf_counter()
    with ThreadPoolExecutor(n_threads) as threads:
        list(
            threads.map(
                lambda number: run_ab_request(f"u{number}", MESSAGES, config(), CLIENT, log=log),
                range(n),
            )
        )
    return n / (time.perf_counter() - started)


def logs(folder: Path, url: str) -> dict[str, EventLog]:
    return {"SQLite": EventLog(folder / "events.sqlite")} | (
        {"PostgreSQL": EventLog(url)} if url else {}
    )


def assignments(n: int) -> None:
    one = time.perf_counter()
    for number in range(100_000):
        assign_variant(f"user-{number}", config())
    print(f"\nassign_variant: {(time.perf_counter() - one) * 10:.2f} us a user")
    ids = pd.Series(np.arange(n)).astype(str)
    for name in ("sha256", "md5-1000"):
        wall, cpu = time.perf_counter(), time.process_time()
        share = (assign_variants(ids, config(name)) == "treatment").mean()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(
            f"assign_variants, {name}: {n:,} users in {wall:.2f} s wall, {cpu:.2f} s CPU ({share:.4f} in treatment)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--users", type=int, default=10_000_000)
    parser.add_argument("--url", default="", help="a PostgreSQL to measure too")
    asked = parser.parse_args()
    print(
        f"{'ms per request, the model taking none':<44} {'p50':>8} {'p95':>8} {'p99':>8} {'CPU':>8}"
    )
    show("routing, nothing logged", *per_request(asked.requests * 5, None))
    with tempfile.TemporaryDirectory() as folder:
        for name, log in logs(Path(folder), asked.url).items():
            show(f"routing, one commit a request, {name}", *per_request(asked.requests, log))
            print(f"  8 threads on {name}: {threaded(asked.requests, log):,.0f} requests/s")
            log.close()
    assignments(asked.users)


if __name__ == "__main__":
    main()
