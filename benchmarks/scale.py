"""Sample ratio and primary metric of an A/B test over a large log: two Parquet tables, DuckDB on two cores.

    python benchmarks/scale.py --events 10_000_000

60% of the events are exposures, 40% outcomes; 20 events a user, who comes back for ten days; user ids are texts. The tables
are made in a temporary folder and removed. Each figure comes from a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

THREADS = 2
START_S = 1_790_000_000 // 86_400 * 86_400
WINDOW_DAYS, EVENTS_PER_USER = 7, 20

VISIT = f"{START_S} + (hash(u + 7) % 1000000) / 1e6 * 14 * 86400 + random() * 10 * 86400 AS at_s"
EXPOSURES = """
COPY (SELECT 'r' || i AS request_id, 'scale' AS experiment, 1 AS phase, 'user-' || u AS user_id,
    CASE WHEN hash(u) % 2 = 0 THEN 'control' ELSE 'treatment' END AS variant, 'model' AS model, {visit},
    100 + random() * 900 AS latency_ms, 'ok' AS outcome, NULL::VARCHAR AS error, false AS fallback,
    100 AS prompt_tokens, 10 AS completion_tokens, NULL::VARCHAR AS slice
  FROM (SELECT i, (i * 2654435761) % {users} AS u FROM range({rows}) t(i))) TO '{file}' (FORMAT parquet, COMPRESSION zstd)
"""
OUTCOMES = """
COPY (SELECT 'o' || i AS outcome_id, 'scale' AS experiment, 'r' || i AS request_id, 'user-' || u AS user_id,
    'accepted' AS metric, (random() < 0.30 + (hash(u) % 2) * 0.001)::DOUBLE AS value, {visit}
  FROM (SELECT i, (i * 2654435761) % {users} AS u FROM range({rows}) t(i))) TO '{file}' (FORMAT parquet, COMPRESSION zstd)
"""


def make(folder: Path, events: int) -> None:
    """Writes the two tables."""
    import duckdb

    users = events // EVENTS_PER_USER
    with duckdb.connect() as engine:
        engine.execute(
            f"SET threads = {THREADS}; SET memory_limit = '3GB'; SET preserve_insertion_order = false"
        )
        for name, sql, share in (("exposures", EXPOSURES, 0.6), ("outcomes", OUTCOMES, 0.4)):
            file = folder / f"{name}.parquet"
            engine.execute(
                sql.format(visit=VISIT, users=users, rows=int(events * share), file=file)
            )


def read(folder: Path, events: int, engine: str) -> dict[str, float]:
    """Reads the test once and says what it took."""
    start = time.perf_counter()
    z = evalkit_reading(folder, events) if engine == "evalkit" else plain_sql(folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_s": time.perf_counter() - start, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024, "z": z
    }  # fmt: skip


def evalkit_reading(folder: Path, events: int) -> float:
    """Opening, stray rows, sample ratio, schedule, the primary metric by user and what became of its outcomes, with imports."""
    from evalkit.abtest.analysis import fetched
    from evalkit.abtest.effects import effect
    from evalkit.abtest.lock import lock, schedule
    from evalkit.abtest.plan import ABPlan, Metric
    from evalkit.abtest.source import open_log
    from evalkit.stats import sample_ratio_test

    users = events // EVENTS_PER_USER
    metric = Metric(name="accepted", expected=0.3, detectable_difference=0.05)
    plan = ABPlan(
        experiment_name="scale", control_model="a", treatment_model="b", primary=metric, traffic_split=0.5,
        min_samples=users // 3, outcome_window_days=WINDOW_DAYS, users_per_day=users / 14,
    )  # fmt: skip
    locked = lock(plan, folder / "plan.lock.json", now=datetime.fromtimestamp(START_S, UTC))
    log = open_log(folder, threads=THREADS, memory_limit="2500MB")
    rows = fetched(log.answered("scale"))
    assert set(rows["variant"]) == {"control", "treatment"}
    people = log.users("scale", window_s=WINDOW_DAYS * 86_400.0)
    counts = people.counts()
    arms = counts.groupby("treated")["n"].sum()
    assert (
        sample_ratio_test([int(arms[0]), int(arms[1])], [0.5, 0.5]).verdict == "no difference shown"
    )
    due = schedule(counts, locked, START_S + 100 * 86_400.0).due
    cells = people.until(due[-1].day).cells("accepted")
    told = fetched(log.recorded("scale")).set_index("metric")["n"]
    assert told["accepted"] >= cells["n_joined"].sum()
    return effect(cells, "rate").z_score or 0.0


def plain_sql(folder: Path) -> float:
    """The least that answers: DuckDB by hand, without window, phases or days."""
    import duckdb

    with duckdb.connect() as engine:
        engine.execute(
            f"SET threads = {THREADS}; SET memory_limit = '2500MB'; SET preserve_insertion_order = false"
        )
        rows = engine.execute(f"""
            WITH x AS (SELECT user_id, min(variant) AS variant, count(*) AS x FROM '{folder}/exposures.parquet'
                GROUP BY user_id),
            y AS (SELECT user_id, sum(value) AS y FROM '{folder}/outcomes.parquet' WHERE metric = 'accepted' GROUP BY user_id)
            SELECT variant, count(*), sum(x), sum(ifnull(y, 0)), sum(x * x), sum(x * ifnull(y, 0)), sum(ifnull(y, 0) ** 2)
            FROM x LEFT JOIN y USING (user_id) GROUP BY variant ORDER BY variant""").fetchall()
    from evalkit.stats import RatioSums, ratio_test_from_sums

    names = ("n", "sum_x", "sum_y", "sum_xx", "sum_xy", "sum_yy")
    sums = [
        RatioSums(**dict(zip(names, (row[1], *map(float, row[2:])), strict=True))) for row in rows
    ]
    return ratio_test_from_sums(*sums).z_score or 0.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--events", type=int, default=10_000_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--read", nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.read:
        print(json.dumps(read(Path(asked.read[1]), asked.events, asked.read[0])))
        return
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        make(Path(name), asked.events)
        size = sum(path.stat().st_size for path in Path(name).iterdir()) / 1e6
        print(
            f"{asked.events:,} events written in {time.perf_counter() - start:.0f} s, {size:,.0f} MB",
            flush=True,
        )
        for turn in range(asked.rounds):
            for engine in ("evalkit", "sql"):
                command = [
                    sys.executable,
                    __file__,
                    "--events",
                    str(asked.events),
                    "--read",
                    engine,
                    name,
                ]
                told = json.loads(
                    subprocess.run(command, check=True, capture_output=True, text=True).stdout
                )
                print(
                    turn + 1,
                    f"{engine:8}",
                    "  ".join(f"{key} {value:,.2f}" for key, value in told.items()),
                    flush=True,
                )


if __name__ == "__main__":
    main()
