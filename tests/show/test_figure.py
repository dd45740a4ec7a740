import base64
import re
import subprocess
import sys

import pytest
from matplotlib import pyplot

from evalkit import show
from evalkit.show import figure, style
from evalkit.show.tracks import draw_interval

HOSTILE = "$5 and $\\frac{a}$ <script>x</script> #1f5fa8"


def plot(n: int, *, narrow: bool = False):
    _, ax = style.canvas(2.0, narrow=narrow)
    for place in range(n):
        draw_interval(ax, place, 0.1, 0.05, 0.15, "better")
    ax.set_yticks([0], [HOSTILE])
    ax.set_title(f"Better, {HOSTILE}")
    return ax


def svgs(html: str) -> list[str]:
    return [
        base64.b64decode(one).decode()
        for one in re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", html)
    ]


def test_importing_show_loads_no_plotting_library():
    code = "import sys, evalkit.show as s; s.table; s.answer; print(any(name.startswith('matplotlib') for name in sys.modules))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )


def test_a_picture_is_drawn_wide_and_narrow_with_its_title_as_text():
    made = show.picture(plot, 1, alt="Better by 10 points.", caption="Method.", subline="What.")
    narrow, wide = svgs(made.body)
    assert ('width="540pt"' in wide, 'width="259.2pt"' in narrow) == (
        True,
        True,
    )  # 7.5 in and 3.6 in
    assert "&lt;script&gt;" in made.body
    assert "<script>" not in made.body
    assert 'alt="Better by 10 points."' in made.body
    assert "Better," not in wide
    assert pyplot.get_fignums() == []


def test_colours_are_variables_in_tags_and_text_is_never_touched():
    wide = svgs(show.picture(plot, 1, alt="A.").body)[1]
    body = wide.split("</style>", 1)[1]
    assert "var(--good)" in body
    assert not re.search(
        "|".join(light for light, _ in style.PALETTE.values()), re.sub(r">[^<]*<", "><", body)
    )
    assert (
        "$5 and $\\frac{a}$ &lt;script&gt;x&lt;/script&gt; #1f5fa8" in body
    )  # drawn as it is, no formula, no variable
    assert "prefers-color-scheme:dark" in wide
    assert "<metadata>" not in wide
    assert not re.search(r'(?:d|x|y)="[^"]*\.\d{3}', body)


def test_the_same_figure_is_the_same_bytes():
    assert show.picture(plot, 2, alt="A.").body == show.picture(plot, 2, alt="A.").body


def test_many_marks_become_a_png():
    def cloud(n: int, *, narrow: bool = False):
        _, ax = style.canvas(2.0, narrow=narrow)
        ax.scatter(range(n), range(n))
        return ax

    assert "data:image/svg" in show.picture(cloud, figure.MOST_SVG_MARKS, alt="A.").body
    dense = show.picture(cloud, figure.MOST_SVG_MARKS + 1, alt="A.").body
    assert "data:image/png" in dense
    assert "data:image/svg" not in dense


def test_simulated_stands_in_title_and_words():
    made = show.picture(plot, 1, alt="Better by 10 points.", simulated=True)
    assert "ek-chip-simulated" in made.body
    assert 'alt="Better by 10 points. Simulated."' in made.body


def test_a_plot_that_fails_leaves_no_figure_open():
    def broken(*, narrow: bool = False):
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        show.picture(broken, alt="A.")
    assert pyplot.get_fignums() == []


def test_every_role_has_its_own_colour_in_both_themes():
    for theme in (0, 1):
        colours = [pair[theme] for pair in style.PALETTE.values()]
        assert len(set(colours)) == len(colours)


def test_letters_that_the_drawing_font_lacks_stay_text():
    def plot(*, narrow=False):
        _, axes = style.canvas(2.0, narrow=narrow)
        axes.set_title("漢字")
        axes.text(0.1, 0.1, "診断")
        return axes

    assert "漢字" in show.picture(plot, alt="A word.").body


@pytest.mark.parametrize("narrow", [False, True])
def test_a_title_is_wrapped_and_never_a_formula_even_without_our_style(narrow):
    from matplotlib import rcParams

    assert rcParams["text.parse_math"]
    _, ax = pyplot.subplots()
    style.titled(
        ax,
        f"Better on {HOSTILE} and \u202eon a good many other slices of this test set",
        narrow=narrow,
        above="points",
    )
    ax.figure.canvas.draw()  # a formula would raise
    lines = ax.get_title().split("\n")
    assert max(map(len, lines)) <= (44 if narrow else 80)
    assert "$\\frac{a}$" in " ".join(lines)
    assert "\u202e" not in ax.get_title()
    assert [text.get_text() for text in ax.texts] == ["points"]
    pyplot.close("all")


def test_a_backend_that_comes_into_force_with_our_figure_still_shows_the_next_plain_one():
    import matplotlib

    from evalkit.show import style

    before = matplotlib.is_interactive()
    matplotlib.interactive(False)
    try:
        with style.style():
            matplotlib.interactive(True)  # what a notebook's backend does when it is loaded
        assert matplotlib.is_interactive()
    finally:
        matplotlib.interactive(before)
