"""CPU seconds that looking for near-duplicates takes: through the index, and comparing all pairs as the yardstick.

    python benchmarks/duplicates.py --rows 5000 --size 2000

Half of the texts are the other half with 3% of the characters replaced. The yardstick is measured on 200
texts and scaled by pairs.
"""

from __future__ import annotations

import argparse
import random
import string
import time

from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from evalkit.benchmark import doctor as near


def texts(n: int, size: int) -> list[str]:
    """Random words, and the same mistyped."""
    draw = random.Random(7)
    words = [
        "".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 9))) for _ in range(5000)
    ]
    originals = [" ".join(draw.choices(words, k=size // 6)) for _ in range(n // 2)]
    typed = (
        "".join(
            draw.choice(string.ascii_lowercase) if draw.random() < 0.03 else char for char in one
        )
        for one in originals
    )
    return [*originals, *typed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--size", type=int, default=2000)
    options = parser.parse_args()
    made = texts(options.rows, options.size)
    began = time.process_time()
    found = near.groups_of(made, 0.9)
    index_s = time.process_time() - began
    some, began = made[:200], time.process_time()
    cdist(some, some, scorer=Indel.normalized_similarity, score_cutoff=0.9)
    pairs_s = (time.process_time() - began) * options.rows**2 / 2 / len(some) ** 2
    print(
        f"{options.rows:,} texts of {options.size:,} characters: {len(found.groups):,} groups in {index_s:.1f} s CPU, "
        f"all pairs about {pairs_s:,.0f} s, ratio {pairs_s / index_s:,.0f}"
    )


if __name__ == "__main__":
    main()
