"""A chapter with plain seaborn and matplotlib: the same whole figures from a warm kernel and from a cold one."""

import json
import re

import pytest

from evalkit.report import chain

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
def test_own_plots_stand_in_the_report_with_title_words_and_no_address_in_memory(project, cold):
    root = project("01_fine", "06_own_plots")  # two chapters: one alone would start cold
    run = chain.run_study("tiny", root=root, cold=cold, say=lambda _: None)
    assert not run.failed
    book = json.loads((run.folder / "06_own_plots.ipynb").read_text(encoding="utf-8"))
    kinds = [set(out["data"]) for cell in book["cells"] for out in cell.get("outputs", [])]
    assert kinds.count({"text/html", "text/plain"}) == 6  # five figures and a note
    page = run.report.read_text(encoding="utf-8")
    chapter = page[page.index('id="06_own_plots"') :]
    alts = re.findall(r'<img[^>]* alt="([^"]*)"', chapter)
    assert len(alts) == 5
    assert "Legend: model: base, fine-tuned. Drawn: 4 points, with error bars." in alts[0]
    assert "Drawn: 1 line, 24 points." in alts[1]
    assert " at 0x" not in chapter
    assert "Longer is &lt;not&gt; better &amp; costs $5" in chapter
