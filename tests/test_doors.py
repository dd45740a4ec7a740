"""Every door by which text leaves: no key goes out, and nothing that a terminal, a spreadsheet or a browser would obey."""

import base64
import json
import unicodedata

import pytest
import yaml

from evalkit.__main__ import main
from evalkit.abtest.log import EventLog
from evalkit.abtest.routing import Exposure
from evalkit.answers.endpoint import Endpoint
from evalkit.answers.evaluation import Estimate
from evalkit.answers.journal import Header, Writer, read_journal
from evalkit.answers.runner import Progress, Tally
from evalkit.answers.scoring import checker
from evalkit.errors import DataError, EvalkitError, ModelError
from evalkit.evidence import Evidence
from evalkit.records import Answer
from evalkit.report.new import new_study
from evalkit.study import Study
from evalkit.wording import for_spreadsheet, visible, without_secrets

KEY = "sk-proj-A9/x+tQ7v#2mZ4"
QUIRKS = [
    *("\x00", "\x1b[2J", "\x9b31m", "\r", "\x7f", "\x08"),
    *("\u202e", "\u2066", "\u200b", "\u00ad", "\u2028", "\u3164", "\u2800", "\ufe00"),
    *("\ufffe", "\uffff", "\ufdd0", "\U0001fffe", "\U000e0041", "\U000e0001", "\ud800"),
]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.parametrize("quirk", QUIRKS, ids=ascii)
def test_what_nobody_sees_is_shown_as_its_code(quirk):
    shown = visible(f"a{quirk}b")
    assert quirk[0] not in shown
    assert f"{ord(quirk[0]):04x}" in shown
    assert str(DataError(f"{quirk}: x")) == visible(f"{quirk}: x")
    assert visible(shown) == shown


def test_what_people_write_stays():
    for text in ("é e\u0301", "العربية", "日本語", "❤️ 👍🏽", "a\tb\nc", "\u00a0", "R07.0 – “x”"):
        assert visible(text) == text


def test_every_control_and_format_character_of_unicode_is_marked_but_arabic_number_signs():
    kept = {chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) in {"Cc", "Cf", "Cs"}}
    kept = {one for one in kept if visible(f"a{one}") == f"a{one}"} - {"\n", "\t"}
    assert {one for one in kept if ord(one) < 0x10000} == {
        *map(chr, range(0x600, 0x606)),
        *"\u06dd\u070f\u0890\u0891\u08e2",
    }


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", " =", "\n\n="])  # fmt: skip
def test_no_cell_is_a_formula(start):
    assert for_spreadsheet(f"{start}1+1").startswith("'")
    assert for_spreadsheet(f"a{start}1") == f"a{start}1"


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "\u202eabc", "\ufffe", "tag\U000e0041"])
def test_names_of_unknown_settings_and_paths_reach_the_terminal_as_marks(
    tmp_path, monkeypatch, capsys, name
):
    (tmp_path / "data/s").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data/s/study.yaml").write_text(yaml.safe_dump({name: 1, "study": "s"}))
    monkeypatch.chdir(tmp_path)
    assert main(["run", "s"]) == 1
    assert main(["doctor", f"{name}.jsonl"]) == 1
    with pytest.raises(SystemExit):
        main(["gate", "s", name])
    told = capsys.readouterr()
    assert name not in told.out + told.err
    assert visible(name) in told.err
    with pytest.raises(EvalkitError) as caught:
        Study.open("s", root=tmp_path).settings  # noqa: B018
    assert name not in str(caught.value)


def test_a_setting_named_with_a_line_end_forges_no_line(tmp_path):
    (tmp_path / "data/s").mkdir(parents=True)
    (tmp_path / "data/s/study.yaml").write_text(yaml.safe_dump({"a\nevalkit: ship": 1}))
    with pytest.raises(DataError, match=r"a\\nevalkit: ship: no such setting"):
        Study.open("s", root=tmp_path).settings  # noqa: B018


def test_progress_shows_a_models_name_as_marks(capsys):
    Progress(Tally(n_calls=1), Estimate(n_calls=1, n_to_ask=1, concurrency=1), name="m\x1b[2J")
    told = capsys.readouterr()
    assert "m\\u001b[2J: 1 of 1 call to make" in told.out + told.err


def test_no_form_of_a_key_is_written_by_any_record(tmp_path):
    forms = {
        *(KEY, KEY.upper(), json.dumps(KEY)[1:-1].replace("/", "\\/"), KEY.encode().hex()),
        *("".join(f"%{byte:02x}" for byte in KEY.encode()), KEY.replace("/", "%2F")),
        base64.b64encode(f"user:{KEY}".encode()).decode(),
        base64.b64encode(KEY.encode()).decode(),
        KEY.replace("/", "%252F").replace("+", "%252B").replace("#", "%2523"),
    }
    told = " ".join(forms)
    answer = Answer(text=told, outcome="ok", finish_reason=told, served_model=told, error=told)
    told_of = {"system_prompt": told, "about": {told: [told]}}
    head = Header(model="m", endpoint="e", parameters={}, **told_of).record()
    for _ in range(2):  # the second time it is gone on with
        with Writer(tmp_path / "base.jsonl", head) as writer:
            writer.append("00" * 32, told, 0, answer)
    assert len(read_journal(tmp_path / "base.jsonl").entries) == 1
    log = EventLog(tmp_path / "events.sqlite")
    row = {"request_id": "r", "experiment": "e", "user_id": "u", "variant": "control", "at_s": 1.0}
    log.record_exposure(Exposure(**row, model=told, latency_ms=1.0, error=told, slice=told))
    log.export(tmp_path)
    log.close()
    Evidence.of(
        {
            "layer": "benchmark",
            "study": told,
            "made_at": "",
            "models": {"base": told},
            "bound_to": {},
            "simulated": False,
            "metric": told,
            "unit": "",
            "primary": None,
            "details": {told: (told,)},
        }
    ).write(tmp_path / "comparison.json")
    assert KEY not in str(DataError(told))
    for path in tmp_path.iterdir():
        content = path.read_bytes().lower()
        for form in forms:
            part = without_secrets(form, [])  # as it is
            assert part.lower().encode() not in content, (path.name, form)
            assert json.dumps(part)[1:-1].lower().encode() not in content, (path.name, form)


@pytest.mark.parametrize(
    "address", ["http://kim:hush-hush@127.0.0.1:1/v1", "http://kim@h/v1", "http://kim:8/0@h/v1", "http://h:x/v1"]
)  # fmt: skip
def test_an_address_with_a_password_is_refused_before_the_first_call(address):
    with pytest.raises(
        ModelError, match=r"need such as .* with the key in OPENAI_API_KEY"
    ) as caught:
        Endpoint("m", base_url=address)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["../schema.json", "/etc/hostname", "link/schema.json"])
def test_a_schema_stays_inside_the_studys_folder(tmp_path, name):
    (tmp_path / "s").mkdir()
    (tmp_path / "schema.json").write_text("{}")
    (tmp_path / "s/link").symlink_to(tmp_path)
    with pytest.raises(DataError, match=r"leaves .*name a file inside the study's folder"):
        checker(f"schema:{name}", folder=tmp_path / "s")


def test_a_model_named_like_a_place_of_the_template_is_written_as_it_is(tmp_path):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    names = {"base": "{{ fine_tuned_model }}", "fine_tuned": "{{ study }} \\g<0> \\1 {{ x }}"}
    made = new_study("s", test=tmp_path / "t.jsonl", root=tmp_path, **names)
    said = yaml.safe_load(made.read_text())
    assert (said["base_model"], said["fine_tuned_model"]) == tuple(names.values())
    assert (said["control_model"], said["treatment_model"]) == tuple(names.values())
