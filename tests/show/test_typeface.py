"""One typeface on every machine: found by its path, measured as it is drawn, carried to the reader in the letters used."""

import base64
import os
import re
import subprocess
import sys
from dataclasses import replace
from io import BytesIO

import pytest
from fontTools.ttLib import TTFont
from matplotlib import font_manager, pyplot
from matplotlib.font_manager import FontProperties

from evalkit.show import figure, style

MEASURE = """
from evalkit.show import style
with style.style():
    figure, ax = style.canvas(2.0)
    words = [ax.text(0, 0, "With themselves, on repeats", weight=weight) for weight in ("normal", "bold")]
    figure.canvas.draw()
    print([text.get_window_extent().width for text in words])
"""


def carried(css: str) -> dict[tuple[str, str], TTFont]:
    rules = re.findall(
        r"font-family:'([^']*)';font-weight:(\d+);src:url\(data:font/woff;base64,([^)]*)\)", css
    )
    return {
        (family, weight): TTFont(BytesIO(base64.b64decode(font))) for family, weight, font in rules
    }


def letters(font: TTFont) -> str:
    return "".join(map(chr, sorted(font.getBestCmap())))


def measured(**environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", MEASURE],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def usual_width():
    """How wide the words are when matplotlib's own list is as it should be."""
    return measured()


@pytest.mark.parametrize(("weight", "face"), [("normal", "Regular"), ("bold", "Bold")])
def test_figures_are_measured_in_the_files_that_came_along(weight, face):
    with style.style():
        path = font_manager.findfont(FontProperties(weight=weight), fallback_to_default=False)
    assert str(path).endswith(f"font_source_sans_pro/files/SourceSansPro-{face}.ttf")


@pytest.mark.parametrize("cache", ["stale", "unwritable", "broken"])
def test_words_are_as_wide_whatever_matplotlib_remembers_of_the_machines_fonts(
    tmp_path, cache, usual_width
):
    list_file = tmp_path / f"fontlist-v{font_manager.FontManager.__version__}.json"
    if cache == "stale":  # every font it remembers is gone
        manager = object.__new__(font_manager.FontManager)
        vars(manager).update(vars(font_manager.fontManager))
        gone = [replace(one, fname="/gone/" + one.name) for one in manager.ttflist]
        manager.ttflist = [one for one in gone if one.name not in {style.FAMILY, style.SIGNS}]
        font_manager.json_dump(manager, list_file)
    elif cache == "broken":
        list_file.write_text("{")
    place = tmp_path / "a file" if cache == "unwritable" else tmp_path
    if cache == "unwritable":
        place.write_text("not a folder")
    assert measured(MPLCONFIGDIR=str(place)) == usual_width


def test_the_files_are_listed_again_after_matplotlib_has_read_its_list_anew():
    fonts = font_manager.fontManager
    before = list(fonts.ttflist)
    with style.style():
        pass
    fonts.ttflist[:] = [one for one in fonts.ttflist if not one.name.startswith(style.FAMILY)]
    with style.style():
        pass
    with style.style():
        names = [one.name for one in fonts.ttflist]
    assert names.count(style.FAMILY) == names.count(style.SIGNS) == 2  # two weights, once
    fonts.ttflist[:] = before


def test_a_figure_carries_the_letters_it_uses_in_the_weight_it_uses_them():
    with style.style():
        shown = pyplot.figure()
        shown.text(0, 0, "a&b")
        shown.text(0, 0, "−12 ↔ ●", weight="bold")
        fonts = carried(figure.svg(shown))
        pyplot.close(shown)
    # ↔ and ● are not in Source Sans Pro
    assert {place: letters(font) for place, font in fonts.items()} == {
        ("evalkit", "400"): "&ab",
        ("evalkit", "700"): " 12−",
        ("evalkit signs", "700"): "↔●",
    }


def test_what_the_typeface_lacks_is_left_to_the_readers_fonts():
    assert style.font_css({400: "漢字 العربية 😀"}) == style.font_css({400: " "})
    assert style.font_css({400: "漢", 700: ""}) == ""


def test_an_accent_set_apart_brings_its_letter_composed():
    (font,) = carried(style.font_css({400: "e\u0301"})).values()
    assert letters(font) == "e\u00e9\u0301"


def test_running_text_keeps_kerning_and_the_notices_of_its_fonts():
    (font,) = carried(style.font_css({400: "To"}, reading=True)).values()
    assert "GPOS" in font
    assert "Adobe" in font["name"].getDebugName(0)
    assert "OFL" in font["name"].getDebugName(14)


def test_a_font_knows_no_time_of_its_making_so_the_same_figure_is_the_same_bytes():
    with TTFont(style.font_files()[style.FAMILY, 400]) as source:
        for reading in (False, True):
            (font,) = carried(style.font_css({400: "To"}, reading=reading)).values()
            assert font["head"].modified == source["head"].modified


@pytest.mark.parametrize("weight", [400, 700])
def test_every_digit_and_the_minus_are_equally_wide(weight):
    font = carried(style.font_css({weight: "0123456789−"})).popitem()[1]
    widths = {font["hmtx"][name][0] for name in font.getBestCmap().values()}
    assert len(widths) == 1
