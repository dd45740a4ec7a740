"""CPU milliseconds a step in the explorer takes, three models side by side; a plain pass over all texts is the yardstick.

python benchmarks/explorer.py --rows 5000 --words 150
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import replace

from evalkit.benchmark.comparison import compare_models
from evalkit.records import EvalResult
from evalkit.show.explorer import Explorer


def answers(n: int, words: int) -> list[list[EvalResult]]:
    """Base, fine-tuned and a checkpoint: random words, one in ten regressed."""
    draw = random.Random(7)

    def text() -> str:
        return " ".join(draw.choices([f"word{i}" for i in range(3_000)], k=words))

    base = [
        EvalResult(
            f"e{i}", text(), text(), text(), True, True,
            slices={"kind": "odd" if i % 2 else "even"}, scores={"similarity": draw.random()},
        )
        for i in range(n)
    ]  # fmt: skip
    tuned = [
        replace(one, predicted=text(), exact_match=i % 10 > 0, scores={"similarity": draw.random()})
        for i, one in enumerate(base)
    ]
    return [base, tuned, [replace(one, predicted=text()) for one in tuned]]


def took_ms(step: Callable[[], object]) -> float:
    began = time.process_time()
    step()
    return (time.process_time() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--words", type=int, default=150)
    options = parser.parse_args()
    base, tuned, third = answers(options.rows, options.words)
    others = {"step 500": compare_models(base, third).pairs}
    it = Explorer(compare_models(base, tuned).pairs, metrics=["similarity"], others=others)
    plain_ms = min(took_ms(lambda: ["word12" in one for one in it._texts]) for _ in range(5))
    steps: dict[str, list[tuple[object, str, object]]] = {
        "status": [(it._status, "value", one) for one in ("regressed", "all")],
        "slice": [(it._slice, "value", one) for one in ("kind = odd", "all")],
        "sort": [(it._metric, "value", one) for one in ("similarity", "", "similarity")],
        "by a checkpoint": [(it._of, "value", one) for one in ("step 500", "change")],
        "search": [(it._text, "value", one) for one in ("word12", "word12 word7", "")],
        "points": [(it._picture, "value", one) for one in (True, False, True)],
        "compare with": [(it._against, "value", one) for one in it._against.options[::-1]],
    }
    for name, changes in steps.items():
        worst = max(took_ms(lambda one=one: setattr(*one)) for one in changes)
        print(f"{name:16} {worst:6.1f} ms at most, {worst / plain_ms:5.2f} plain passes")
    for name, step in {"next": it._next.click, "show": lambda: it.show("e4321")}.items():
        worst = max(took_ms(step) for _ in range(5))
        print(f"{name:16} {worst:6.1f} ms at most, {worst / plain_ms:5.2f} plain passes")


if __name__ == "__main__":
    main()
