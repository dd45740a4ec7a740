"""A notebook's own plots: the kit's look is in force, and each plain figure becomes the report's, with words."""

import base64
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from IPython.core.formatters import DisplayFormatter
from matplotlib import pyplot
from matplotlib.figure import Figure
from nbclient import NotebookClient

from evalkit.show import figure as plain
from evalkit.show import style

PAYLOAD = "<script>window.x=1</script> $5 \u202eabc"


@pytest.fixture
def drawn():
    """A figure with one line, three points, bars and a title."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2, 3], [2.0, 4.0, 8.0], "o-", label="base", color="black")
    axes.bar([1, 2], [1.0, 2.0], label="users", color="#1f5fa8")
    axes.legend(title="model")
    axes.set(title="It doubles", xlabel="day", ylabel="users")
    return figure


def svg_of(shown):
    return base64.b64decode(re.search(r"svg\+xml;base64,([^\"]+)", shown.body)[1]).decode()


def test_the_words_of_a_plain_figure_are_read_off_its_axes(drawn):
    assert plain.described(drawn) == (
        "It doubles. Across: day, 0.6 to 3. Up: users, 0 to 8. Legend: model: base, users. "
        "Drawn: 1 line, 3 points, 2 bars."
    )


@pytest.mark.filterwarnings("ignore:vert")  # seaborn's box plot in matplotlib 3.11
@pytest.mark.parametrize(
    ("plot", "told"),
    [
        (sns.boxplot, "Drawn: 1 point, 2 boxes."),  # the point lies far out
        (sns.violinplot, "Drawn: 2 points, 2 shaded areas."),
        (sns.barplot, "Drawn: 2 bars, with error bars."),
        (sns.pointplot, "Drawn: 1 line, 2 points, with error bars."),
        (sns.lineplot, "Drawn: 1 line, 1 shaded area."),
    ],
)
def test_boxes_and_areas_are_counted_and_error_bars_only_where_one_is_seen(plot, told):
    data = pd.DataFrame({"x": [*"aaaabbbb"], "y": [1, 2, 3, 4, 1, 2, 3, 40.0]})
    assert plain.described(plot(data, x="x", y="y").figure).endswith(told)
    pyplot.close("all")
    means = data.groupby("x", as_index=False).mean()
    for single, words in ((sns.barplot, "Drawn: 2 bars."), (sns.lineplot, "Drawn: 1 line.")):
        assert plain.described(single(means, x="x", y="y").figure).endswith(words)
        pyplot.close("all")


def test_its_title_is_text_and_the_figure_stays_as_it_was(drawn):
    shown = plain.whole(drawn)
    assert re.search(r'<p class="ek-title"><bdi [^>]*>It doubles</bdi></p>', shown.body)
    assert "It doubles" not in svg_of(shown)
    assert drawn.axes[0].title.get_visible()
    assert drawn.axes[0].get_title() == "It doubles"


def test_black_and_unknown_colours_have_a_dark_twin(drawn):
    light, dark = svg_of(plain.whole(drawn)).split("@media", 1)
    assert "--fine-tuned:#1f5fa8" in light
    assert "--fine-tuned:#7fb4f2" in dark
    assert "--c000000:#ededed" in dark  # a grey is mirrored: 0.93 - 0.84 * 0
    assert "fill:#ededed" in dark  # a black fill is left out by matplotlib


@pytest.mark.parametrize("colour", ["#000000", "#000080", "#333333", "#ff0000", "#8b0000"])
def test_what_was_dark_has_contrast_on_a_dark_page(colour):
    def light(value):
        parts = [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    paper = light(style.PALETTE["paper"][1])
    assert (light(style.in_the_dark(colour)) + 0.05) / (paper + 0.05) >= 3


def test_hostile_names_stay_text_in_every_place():
    figure = Figure()
    axes = figure.subplots()
    axes.scatter([1, 2], [1, 2], label=PAYLOAD)
    axes.set(title=PAYLOAD, xlabel=PAYLOAD, ylabel=PAYLOAD)
    axes.legend(title=PAYLOAD)
    body = plain.whole(figure).body
    assert "<script" not in body
    assert "\u202e" not in body
    assert "Drawn: 2 points." in body


def test_several_panels_are_named_with_their_categories_and_error_bars():
    figure = Figure()
    left, right = figure.subplots(1, 2, sharey=True)
    for name, axes in (("terse", left), ("wordy", right)):
        axes.errorbar(["single", "multi"], [0.5, 0.6], yerr=0.1, fmt="o")
        axes.set(title=f"style = {name}")
    left.set_ylabel("similarity")
    figure.suptitle("Both styles")
    told = plain.described(figure)
    assert told.startswith(
        "Both styles. 2 panels: style = terse, style = wordy. Across: single, multi."
    )
    assert "Up: similarity, 0.4 to 0.7." in told


def test_a_heat_map_keeps_its_shades_on_paper():
    figure = Figure()
    figure.subplots().pcolormesh(np.arange(12).reshape(3, 4))
    shown = plain.whole(figure)
    assert 'class="ek-png"' in shown.body
    assert "12 shaded cells" in shown.text


def test_an_empty_figure_says_so():
    assert plain.described(Figure()) == "A figure without words of its own."


def test_the_theme_is_the_kits_and_our_own_figures_do_not_depend_on_it():
    with matplotlib.rc_context():
        style.use()
        cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
        assert [f"#{one}" if one[0] != "#" else one for one in cycle][:2] == [
            style.COLOURS["base"],
            style.COLOURS["fine_tuned"],
        ]
        matplotlib.rcParams["axes.grid"] = True
        with style.style():
            assert not matplotlib.rcParams["axes.grid"]
            assert matplotlib.rcParams["figure.constrained_layout.use"]


def test_a_kernel_shows_figures_whole_and_a_terminal_only_gets_the_look():
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    kernel = SimpleNamespace(display_formatter=DisplayFormatter(), kernel=object())
    with matplotlib.rc_context():
        style.use_in(shell)
        style.use_in(kernel)
    figure = pyplot.figure()
    axes = figure.subplots()
    try:
        formatters = [one.display_formatter.ipython_display_formatter for one in (shell, kernel)]
        assert [_has(one, figure) for one in formatters] == [False, True]
        assert [_has(one, axes) for one in formatters] == [False, True]
    finally:
        pyplot.close(figure)


def _has(formatter, what):
    try:
        return formatter.lookup(what) is not None
    except KeyError:
        return False


def test_a_script_keeps_its_look_and_loads_no_plotting_library():
    code = "import sys; from evalkit import show; print([m for m in ('matplotlib', 'numpy', 'seaborn') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_study_opened_in_a_kernel_shows_its_records_without_an_import_of_show():
    lines = (
        "from IPython.core.interactiveshell import InteractiveShell",
        "shell = InteractiveShell.instance()",
        "shell.kernel = object()",
        "from evalkit import Study",
        "from evalkit.benchmark.slices import SliceTable",
        "Study.open('icd10')",
        "print(SliceTable in shell.display_formatter.ipython_display_formatter)",
    )
    run = [sys.executable, "-c", "\n".join(lines)]
    out = subprocess.run(run, capture_output=True, text=True, check=True)
    assert out.stdout.split()[-1] == "True"


def test_axes_without_anything_in_them_are_a_line_of_text_not_a_grid():
    none = pd.DataFrame({"day": [], "rate": [], "variant": []})
    figure = Figure()
    sns.lineplot(none, x="day", y="rate", hue="variant", ax=figure.subplots())
    figure.axes[0].set(title="By day")
    assert str(plain.whole(figure)) == "By day: nothing to draw."
    figure.axes[0].plot([1], [2], "o")
    assert "<img" in plain.whole(figure).body


@pytest.mark.slow
def test_on_a_host_that_draws_for_nobody_each_cell_still_shows_its_own_figure():
    cells = (
        "import pandas as pd, seaborn as sns\nfrom evalkit import show\n"
        "rows = pd.DataFrame({'day': pd.date_range('2026-01-01', periods=3), 'rate': [1, 2, 3], 'kind': [*'abc']})",
        "axes = sns.barplot(rows, x='kind', y='rate')",
        "axes = sns.lineplot(rows, x='day', y='rate')",  # on an axis of categories it would raise
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])
    env = os.environ | {"MPLBACKEND": "agg"}
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(env=env)
    told = [[out["data"]["text/plain"] for out in one.outputs] for one in notebook.cells]
    assert [len(one) for one in told] == [0, 1, 1]
    assert "Drawn: 3 bars" in told[1][0]
    assert "Drawn: 1 line" in told[2][0]
