"""The rating page's own drawing of a conversation, in Chromium, with a stand-in for the program behind it."""

import json
from pathlib import Path

import pytest

import evalkit.human
from evalkit.conversation import conversation_html, structure
from evalkit.human.rater import Rater

pytestmark = pytest.mark.browser
SCRIPT = Path(evalkit.human.__file__).with_name("rater.js").read_text(encoding="utf-8")
LONG = "You are careful. " * 100
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 16_000}}
CALL = {"id": "c1", "function": {"name": "weather", "arguments": '{"at": "Lima"}'}}
TALKS = {
    "four": [
        {"role": "system", "content": "You answer in French."},
        {"role": "user", "content": "Capital of Spain?"},
        {"role": "assistant", "content": "Madrid"},
        {"role": "user", "content": "And its population?"},
    ],
    "calls": [
        {"role": "system", "content": LONG},
        {"role": "user", "content": ["What is this?", PICTURE]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "<b>31</b> $x^2$"},
        {"role": "user", "content": "ما هي عاصمة إسبانيا؟"},
    ],
    "ten": [
        {"role": "user" if i % 2 else "assistant", "content": f"turn {i} " * 40} for i in range(10)
    ],
    "one": [{"role": "user", "content": "def f():\n    return  1\n"}],
}


@pytest.fixture
def drawn(browser):
    """The page of a rater who judges an answer to a conversation."""
    pages = []

    def made(messages, scheme="light", width=1280, **said):
        item = {"id": "x", "input": "", "left": "one", "right": "other"}
        view = {"rev": 1, "state": "rating", "item": item, "done": 1, "total": 9, "can_undo": False}
        words = {"notice": "", "question": "Which?", "rubric": "", "reasons": [], "banner": ""}
        known = json.dumps(view | words | said | {"conversation": structure(messages)})
        model = "{get: () => view, on() {}, off() {}, send() {}}"
        script = SCRIPT.replace("export default { render };", "").replace("</", "<\\/")
        known = known.replace("</", "<\\/")
        start = (
            f"const view = {known}; render({{model: {model}, el: document.querySelector('main')}})"
        )
        css = f"body{{background:Canvas;color:CanvasText}}{Rater._css}"
        head = f"<title>t</title><meta name=color-scheme content='light dark'><style>{css}</style>"
        body = f"<main></main><script>{script}\n{start}</script>"
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page.set_content(
            f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>"
        )
        pages.append(page)
        return page

    yield made
    for page in pages:
        page.close()


@pytest.mark.parametrize("name", TALKS)
def test_it_draws_what_the_tables_and_the_explorer_show(drawn, name):
    page = drawn(TALKS[name])
    ours = page.locator("[aria-label=Input]")
    html = json.dumps(conversation_html(TALKS[name]))
    there = page.evaluate(
        f"(() => {{ const box = document.createElement('div'); box.innerHTML = {html}; return box.textContent; }})()"
    )
    assert ours.evaluate("(box) => box.textContent") == there


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]
)
@pytest.mark.parametrize("name", TALKS)
def test_axe_finds_nothing_nothing_is_cut_and_the_last_message_is_in_sight(
    drawn, name, scheme, width
):
    from axe_playwright_python.sync_playwright import Axe

    page = drawn(TALKS[name], scheme, width)
    found = Axe().run(page, options={"rules": {"page-has-heading-one": {"enabled": False}}})
    assert [one["id"] for one in found.response["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.locator("[aria-label=Input]")
    last = box.locator("bdi").last.bounding_box()
    seen = box.bounding_box()
    assert last["y"] + last["height"] <= seen["y"] + seen["height"] + 1


def test_a_long_system_prompt_is_folded_and_the_keyboard_opens_it(drawn):
    page = drawn(TALKS["calls"])
    folded = page.locator("details.ek-turn")
    assert "(1,700 characters)" in folded.locator("summary").inner_text()
    assert not folded.locator(".ek-said").is_visible()
    folded.locator("summary").focus()
    page.keyboard.press("Enter")
    assert folded.locator(".ek-said").inner_text() == LONG
    said = page.locator("[aria-label=Input]").inner_text()
    for words in ("[image: image/png]", '[call of weather: {"at": "Lima"}]', "tool weather"):
        assert words in said
    assert (
        page.locator("[aria-label=Input] .ek-turn bdi").last.evaluate(
            "(one) => getComputedStyle(one).direction"
        )
        == "rtl"
    )


def test_a_name_without_a_break_does_not_widen_it(drawn):
    name = "x" * 60
    talk = [{"role": "system", "name": name, "content": name}, {"role": "user", "content": name}]
    item = {"id": "x", "input": "", "left": name, "right": name}
    said = {"notice": name, "question": name, "rubric": name, "reasons": [name], "banner": name}
    page = drawn(talk, width=390, item=item, **said)
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
