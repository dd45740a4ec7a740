"""Comparisons in every state a figure or a sentence can meet."""

import pytest
from matplotlib import pyplot

from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.noise import noise_floor
from evalkit.benchmark.slices import slice_table
from evalkit.records import EvalResult
from evalkit.show.style import COLOURS

PAYLOADS = (
    "<script>window.x=1</script>",
    "<img src=x onerror=window.x=1>",
    "<svg onload=window.x=1>",
    "[a](javascript:window.x=1)",
    "$\\frac{a}$ costs $5 and $6",
    "\u202eabc\u200b",
    "half \ud83d",
    "nul\x00 esc\x1b[31m",
    "<b>&amp;</b>\"'`",
)
CELLS = {
    "better": (20, 40, 5, 35),
    "worse": (20, 5, 40, 35),
    "no difference shown": (20, 12, 10, 58),
    "no examples": (0, 0, 0, 0),
    "one example": (0, 1, 0, 0),
    "identical": (10, 0, 0, 10),
    "large": (2000, 1500, 500, 1000),
}


def results(right, *, outcome=None):
    return [
        EvalResult(
            f"e{i}",
            f"question {i}",
            "yes",
            "yes" if ok else "no",
            bool(ok),
            i % 3 > 0,
            outcome=outcome[i] if outcome else "ok",
            slices={"kind": "big" if i % 10 else "small"},
            latency_ms=100.0 + i,
            completion_tokens=i % 7,
        )
        for i, ok in enumerate(right)
    ]


def sides(both_right, fixed, regressed, both_wrong):
    base = [1] * both_right + [0] * fixed + [1] * regressed + [0] * both_wrong
    return base, [1] * both_right + [1] * fixed + [0] * regressed + [0] * both_wrong


def made(state):
    if state == "fragile":
        base, tuned = sides(40, 30, 10, 20)
        failed = ["error" if 40 <= i < 60 else "ok" for i in range(100)]
        base = [ok and failed[i] == "ok" for i, ok in enumerate(base)]
        return compare_models(results(base, outcome=failed), results(tuned), metric_margin=0.05)
    base, tuned = sides(*CELLS[state])
    return compare_models(results(base), results(tuned), metric_margin=0.05)


@pytest.fixture(scope="session", params=[*CELLS, "fragile"])
def state(request):
    """A state's name and a comparison in that state."""
    return request.param, made(request.param)


@pytest.fixture(scope="session")
def comparison_in():
    """Makes a comparison in a named state."""
    return made


@pytest.fixture(scope="session")
def hostile():
    """A comparison whose every text is hostile, with its slices and its noise floor."""
    n = len(PAYLOADS)

    def made(side):
        right = [bool((i + side) % 2) for i in range(5 * n)]
        return [
            EvalResult(
                f"{text}{i}", text, text, text if right[i] else f"{text} wrong", right[i], False,
                slices={text: text, "kind": text}, error=text,
            )
            for i, text in enumerate(PAYLOADS * 5)
        ]  # fmt: skip

    base, tuned = made(0), made(1)
    compared = compare_models(base, tuned)
    noise = noise_floor(
        compared,
        {"base": (base, base), "fine-tuned": (tuned, tuned)},
        [str(one.example_id) for one in base],
    )
    assert compared.n == 5 * n
    return compared, slice_table(compared), noise


@pytest.fixture
def words_crossed():
    """Names the texts of a figure that a line, a zone or another text passes through; the faint grid may."""

    def placed(artists):
        return [path.transformed(one.get_transform()) for one in artists for path in _paths(one)]

    def found(ax):
        ax.figure.canvas.draw()
        boxes = {text: text.get_window_extent() for text in ax.texts if text.get_text()}
        lines = placed(line for line in ax.lines if line.get_color() != COLOURS["grid"])
        zones = placed([*ax.collections, *ax.patches])
        crossed = [
            a
            for a, box in boxes.items()
            if any(path.intersects_bbox(box, filled=False) for path in lines)
        ]
        crossed += [
            a for a, box in boxes.items() if any(path.intersects_bbox(box) for path in zones)
        ]
        crossed += [
            a
            for a, box in boxes.items()
            for b, other in boxes.items()
            if a is not b and box.overlaps(other)
        ]
        pyplot.close(ax.figure)
        return [text.get_text() for text in crossed]

    return found


def _paths(artist):
    return artist.get_paths() if hasattr(artist, "get_paths") else [artist.get_path()]
