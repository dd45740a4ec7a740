"""A study in which all that others write is hostile - answers, models, slices, title, reasons - as a page in Chromium."""

import json
from pathlib import Path

import pytest
import yaml

from evalkit.answers.runner import run_automated_eval
from evalkit.report import chain

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
AWAY = "http://127.0.0.1:9/away"
HOSTILE = [
    f'"><img src={AWAY} onerror="window.X=1"><script>alert(\'x\')</script>',
    f"</td></table></details><meta http-equiv=refresh content='0;url={AWAY}'>",
    f"![x]({AWAY}.png) [y](javascript:alert(1)) <a href='javascript:window.X=1' autofocus onfocus=alert(1)>z</a>",
    f"</style><style>@import '{AWAY}';body{{background:url({AWAY})}}</style><base href='{AWAY}'>",
    f"<svg onload=alert(1)><iframe src={AWAY}></iframe><form action={AWAY}><input type=submit></form>",
    "W" * 400,
    "\u202eabc\u2066\x1b[2J\u200b\ufffe\U000e0041 $\\mathrm{x}$ {{ model }} \\(x\\)",
    f'=HYPERLINK("{AWAY}") </summary></details> ${{alert(1)}} \x00\x1b]8;;{AWAY}\x07link\x1b]8;;\x07 [a](<javascript:X>)',
    '--></script><xmp><template><noscript><plaintext><div style="position:fixed;inset:0;z-index:9999">',
]
BASE, TUNED = f"base {HOSTILE[0]}", f"{HOSTILE[5][:90]}{HOSTILE[2]}"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    home = root / "data/hostile"
    home.mkdir(parents=True)
    (root / "notebooks").symlink_to(NOTEBOOKS)
    said = {
        "study": "hostile", "title": HOSTILE[0] + HOSTILE[5], "base_model": BASE, "fine_tuned_model": TUNED,
        "slice_fields": "kind", "checker": "none", "rules_file": "rules.yaml",
    }  # fmt: skip
    (home / "study.yaml").write_text(yaml.safe_dump(said))
    (home / "rules.yaml").write_text(yaml.safe_dump({"retired_evidence": {HOSTILE[1]: HOSTILE[4]}}))
    rows = [
        {"metadata": {"kind": text}, "messages": [
            {"role": "user", "content": f"{n} {text}"}, {"role": "assistant", "content": f"{n % 3} {text}"}]}
        for n in range(6) for text in HOSTILE
    ]  # fmt: skip
    (home / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for role, name, right in (("base", BASE, 2), ("fine_tuned", TUNED, 4)):
        run_automated_eval(
            _answering(name, right), home / "test.jsonl", journal=home / f"journals/{role}.jsonl", name=name,
            progress=False,
        )  # fmt: skip
    run = chain.run_study("hostile", root=root, only=["01", "02", "07"], say=lambda _: None)
    assert {name: one.error for name, one in run.chapters.items() if one.error} == {}
    return run.report


@pytest.fixture(scope="module")
def compared_file(tmp_path_factory):
    """The page of two files of another tool, in which everything is hostile: models, columns, slices, files' own names."""
    root = tmp_path_factory.mktemp("compared")
    (root / "notebooks").symlink_to(NOTEBOOKS)
    files = []
    for name, right in ((BASE, 2), (TUNED + HOSTILE[8], 4)):
        rows = [
            {"id": f"{n} {text}", "input": f"{n} {text}", "expected": text, "model": name, HOSTILE[0]: float(n < right),
             "output": text if n < right else f"no {text} \ud800", HOSTILE[1]: text}
            for n in range(6) for text in HOSTILE
        ]  # fmt: skip
        files.append(root / f"{HOSTILE[2][:4]}{'w' * 80}{right}<b onload=alert(1)>.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return chain.compare(*files, metric="exact_match", root=root)[0]


def _answering(name, right):
    def model(messages):
        number, text = messages[-1]["content"].split(" ", 1)
        return f"{int(number) % 3} {text}" if int(number) < right else f"no: {text}"

    model.__name__ = name
    return model


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("made", ["page_file", "compared_file"])
def test_nothing_runs_nothing_leaves_and_the_page_keeps_its_width(browser, request, made, width):
    page_file = request.getfixturevalue(made)
    page = browser.new_page(viewport={"width": width, "height": 844}, bypass_csp=True)
    asked, told = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    page.goto(page_file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    page.wait_for_timeout(500)
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    assert (told, page.url, page.evaluate("window.X")) == ([], page_file.as_uri(), None)
    bad = "script, iframe, form, input, base, meta[http-equiv=refresh], a[href^=javascript], [onerror], [onload], [onfocus]"
    assert page.locator(bad).count() == 0
    assert page.evaluate("[...document.images].every(one => one.src.startsWith('data:'))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("main").inner_text().count("onerror=") > 3
    page.close()
