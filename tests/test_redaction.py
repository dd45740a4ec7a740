"""Known secrets leave every text in every spelling; words that only look like one stay letter by letter."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit import wording
from evalkit.wording import known_secrets, without_secrets, without_secrets_in

KEY = "sk-canary-0123456789abcdef"
PASSWORD = 'p4ss/w+rd&"x é'
WORDS = [
    "Who holds a bearer certificate?",
    "sk-learn-based",
    "Sk-Zellen-Test",
    "an sk-learn-based pipeline, see sk-learn-1.5-notes",
    "Bearer Depositary Receipts",
    "sk-proj-keys are keys of a project; sk-ant-api03- is how others begin",
    "the password is kept, the token is not needed, changeme",
]


@pytest.mark.parametrize("text", WORDS)
def test_words_that_look_like_keys_stay_letter_by_letter(text, monkeypatch):
    for name, value in {
        "OPENAI_API_KEY": "sk-proj-9f8e7d6c5b4a39281706",
        "OTHER_API_KEY": "not-needed",
        "DB_PASSWORD": "changeme",
        "DB": "postgresql://ann:password@db/x",
    }.items():
        monkeypatch.setenv(name, value)
    assert without_secrets(text) == wording.redacted(text) == text


@pytest.mark.parametrize("secret", [KEY, PASSWORD, "Swordfish", "x" * 7 + "1"])
@pytest.mark.parametrize(
    "written",
    [
        str,
        str.upper,
        str.lower,
        quote,
        lambda secret: quote(secret, safe="").lower(),
        json.dumps,
        lambda secret: json.dumps({"said": json.dumps(secret)}),
        lambda secret: json.dumps(secret, ensure_ascii=False),
        lambda secret: base64.b64encode(secret.encode()).decode(),
        lambda secret: base64.b64encode(f"ann:{secret}".encode()).decode(),
        lambda secret: base64.b64encode(f"Bearer {secret}, ok".encode()).decode(),
        lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
        lambda secret: secret.encode().hex(),
        wording.render_text,
    ],
)
def test_a_known_secret_is_removed_however_it_is_written(secret, written):
    text = written(secret)
    assert "[key removed]" in without_secrets(f"before {text} behind", [secret])
    assert without_secrets(f"before {text} behind", [secret]).startswith("before ")
    assert without_secrets(f"before {text} behind", [secret]).endswith(" behind")


@pytest.mark.parametrize(
    ("cut", "left"),
    [
        (KEY[:-1], "[key removed]"),
        (KEY[:20] + "...", "[key removed]..."),
        (KEY[:18] + "****" + KEY[-8:], "[key removed]****[key removed]"),
        (KEY[10:], "[key removed]"),
        (KEY[:6] + "****" + KEY[-4:], KEY[:6] + "****" + KEY[-4:]),  # what servers show on purpose
    ],
)
def test_a_secret_that_was_cut_or_masked_goes_with_what_is_left_of_it(cut, left):
    assert without_secrets(f"key {cut} is wrong", [KEY]) == f"key {left} is wrong"


def test_the_ends_of_a_secret_made_of_words_stay_words():
    secret = "correct-horse-battery-staple"
    assert without_secrets("the correct-answer rate", [secret]) == "the correct-answer rate"
    assert without_secrets(f"key {secret[:-3]}", [secret]) == "key [key removed]"


def test_the_environments_keys_and_passwords_are_known_and_its_other_values_are_not():
    environment = {
        "OPENAI_API_KEY": KEY,
        "HF_TOKEN": "hf_1234567",
        "MY_SECRET": "open-sesame",
        "PGPASSWORD": "swordfish",
        "LOG": "postgresql://ann:p%40ss-word@db/x?sslmode=require",
        "GATEWAY": "https://h/v1?api_key=quer1-key",
        "SHORT_TOKEN": "abc1",
        "LOCAL_API_KEY": "not-needed",
        "DB_PASSWORD": "postgres",
        "HOME": "/home-of-somebody",
        "BYTES_TOKEN": "no text \udcff",
        "PWD": "/a-long-working-folder",
        "TOKENIZERS_PARALLELISM": "falsefalse",
    }
    assert set(known_secrets("given-key-1", "https://u:in-a-url@h", environment=environment)) == {
        *(KEY, "hf_1234567", "open-sesame", "swordfish", "p%40ss-word", "p@ss-word"),
        *("quer1-key", "given-key-1", "in-a-url"),
    }


def test_a_json_value_loses_its_secrets_and_nothing_else():
    value = {"a": [f"x {KEY}", 1, None], f"of {KEY}": {"b": True}}
    assert without_secrets_in(value, [KEY]) == {
        "a": ["x [key removed]", 1, None],
        "of [key removed]": {"b": True},
    }


@given(text=st.text(), secret=st.text(min_size=8, max_size=30))
def test_whatever_the_secret_is_it_is_gone_and_other_text_stands(text, secret):
    assert secret not in without_secrets(f"{text}{secret}", [secret]) or secret in "[key removed]"


def test_keys_under_shorter_names_and_in_queries_are_known_and_words_under_them_are_not():
    secrets = {
        "AZURE_OPENAI_KEY": "azkey-123456789abcdef",
        "SERVICE_AUTH": "0f9e8d7c6b5a49382716",
        "BLOB": "https://store/x?sv=2024&sig=q7Lk2mN8pR4t&access_token=tok-4411-9977",
    }
    words = {
        "SORT_KEY": "department",
        "PUBLIC_KEY": "/etc/ssl/certs/site-2024.pem",
        "GOOGLE_APPLICATION_CREDENTIALS": "/etc/evalkit/project-2024.json",
        "PWD": "/srv/evalkit-2024-11-28",
    }
    assert set(known_secrets(environment=secrets | words)) == {
        "azkey-123456789abcdef",
        "0f9e8d7c6b5a49382716",
        "q7Lk2mN8pR4t",
        "tok-4411-9977",
    }
