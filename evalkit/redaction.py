"""Secrets that this process knows - keys and passwords of its environment, of URLs, of a client - taken out of texts.

Exact, never by a guess: a text changes only where a known secret stands in it, as it is, in another case or encoding,
or cut off by whoever wrote the text.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

REMOVED = "[key removed]"
SHORTEST = 8  # characters: what is shorter is a word that stands in many texts
_SECRET_NAME = re.compile(
    r"(?i)((^|_)(API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|TOKEN)|SECRET(_?KEY)?|PASSWORD|PASSWD|PASSPHRASE)$"
)
_LESS_CERTAIN_NAME = re.compile(
    r"(?i)(^|_)(KEY|AUTH|BEARER|CREDENTIALS?)$"
)  # of keys, and of words
_USER = re.compile(r"://([^/\s:@?#]*)(:?)")
_PORT = re.compile(r"\d{1,5}(?=/|\Z)")
_IN_QUERY = re.compile(
    r"[?&;](?:[\w.-]*(?:password|passwd|pwd|key|token|secret|signature)|sig)=([^&\s]+)", re.I
)
_PLACEHOLDERS = {  # what stands where no secret is needed: ordinary words, kept in texts
    *("password", "postgres", "postgresql", "changeme", "change-me", "placeholder", "undefined"),
    *("not-needed", "notneeded", "not-required", "no-key-needed", "no-key-required", "required"),
    *("lm-studio", "dummy-key", "fake-key", "test-key", "local-key", "your-api-key", "anything"),
    *("sk-dummy", "sk-local", "sk-no-key", "sk-no-key-required", "production", "development"),
}
_LABELS = re.compile(r"(?:[A-Za-z0-9]{1,6}[-_])*")  # a key's public beginning: sk-, sk-proj-, ghp_


def without_secrets(text: str, secrets: Iterable[str] | None = None) -> str:
    """The text with every known secret replaced; `secrets` as `known_secrets` gives them, by default the environment's.

    Example:
        >>> without_secrets("401: Incorrect API key provided: Sesame-2024", ["Sesame-2024"])
        '401: Incorrect API key provided: [key removed]'
    """
    low = text.lower()
    for secret in known_secrets() if secrets is None else secrets:
        for form, is_cut in _forms(secret):
            if form.lower() in low:
                whole = re.compile(re.escape(form), re.IGNORECASE)
                text = _with_ends(text, form, secret) if is_cut else whole.sub(REMOVED, text)
                low = text.lower()
    return text


def without_secrets_in(value: object, secrets: Iterable[str] | None = None) -> Any:
    """The same for everything that is text in a JSON value."""
    known = tuple(known_secrets() if secrets is None else secrets)
    if isinstance(value, str):
        return without_secrets(value, known)
    if isinstance(value, Mapping):
        return {
            without_secrets(str(name), known): without_secrets_in(one, known)
            for name, one in value.items()
        }
    return [without_secrets_in(one, known) for one in value] if isinstance(value, list) else value


def known_secrets(*given: object, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Values of the environment's keys and passwords, passwords in its URLs, and what is given: keys, or URLs.

    A value counts from eight characters on. Placeholders such as "not-needed" are words and stay.

    Example:
        >>> known_secrets("postgresql://ann:s3same-open@db/log", environment={"HF_TOKEN": "hf_1234567", "HOME": "/h"})
        ('s3same-open', 'hf_1234567')
    """
    texts = [text.strip() for text in given if isinstance(text, str)]
    found = [one for text in texts for one in (passwords_in(text) if "://" in text else [text])]
    for name, value in environment.items():
        less_certain = _LESS_CERTAIN_NAME.search(name) and _looks_random(value.strip())
        if _SECRET_NAME.search(name) or less_certain:
            found.append(value.strip())
        if "://" in value:
            found += passwords_in(value)
    kept = (
        one
        for one in found
        if len(one) >= SHORTEST
        and one.lower() not in _PLACEHOLDERS
        and one == one.encode("utf-8", "replace").decode()  # bytes that are no text
    )
    return tuple(sorted(dict.fromkeys(kept), key=len, reverse=True))


def _looks_random(value: str) -> bool:
    """Too long and too mixed for a word, and no path: `SORT_KEY=department` holds no secret."""
    mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
    return mixed and len(value) >= 2 * SHORTEST and not re.search(r"[\s/\\]", value)


def passwords_in(text: str) -> list[str]:
    """Passwords and keys of the URLs in a text, of any length, as they stand there and decoded.

    An "@", a "/" or a "#" may belong to a password or end it: then each way of reading it is given.

    Example:
        >>> passwords_in("postgresql://ann:a@b/c@db/log"), passwords_in("http://127.0.0.1:8080/v1?at=a@b")
        (['a', 'a@b/c'], [])
    """
    raw = _IN_QUERY.findall(text)
    for found in _USER.finditer(text):
        behind = text[found.end() :]
        if not found[2]:  # a key in the place of the name
            raw += [found[1]] if behind.startswith("@") and _looks_random(found[1]) else []
        elif not _PORT.match(behind):
            behind = re.split(r"\s", behind, maxsplit=1)[0]
            raw += [behind[: at.start()] for at in re.finditer("@", behind) if at.start()]
    return list(dict.fromkeys([*raw, *map(unquote, raw)]))


@lru_cache(maxsize=64)
def _forms(secret: str) -> tuple[tuple[str, bool], ...]:
    """How a secret may be written, whole; then its ends, as a server cuts or masks it (True)."""
    escaped = json.dumps(secret)[1:-1]
    whole = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote(quote(secret, safe=""), safe=""),
        "".join(f"%{byte:02X}" for byte in secret.encode()),
        "".join(f"\\u{ord(char):04x}" for char in secret),
        quote_plus(secret),
        html.escape(secret),
        escaped,
        escaped.replace("/", "\\/"),
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(escaped)[1:-1],
        secret.encode().hex(),
        *_in_base64(secret.encode()),
    }
    ordered = sorted((one for one in whole if len(one) >= SHORTEST), key=len, reverse=True)
    return (*((one, False) for one in ordered), *((one, True) for one in _ends(secret)))


def _in_base64(secret: bytes) -> Iterator[str]:
    """Its base64 alone, and the part that stays the same when other bytes stand before and behind, as in `user:password`."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(secret).decode()
        for n_before in range(3):
            coded = encode(b"\0" * n_before + secret).decode().rstrip("=")
            skipped, left = -(-n_before * 8 // 6), (n_before + len(secret)) * 8 // 6
            yield coded[skipped:left]


def _ends(secret: str) -> list[str]:
    """The shortest beginning and end that give it away: eight characters of its own, and no mere word or number."""
    return [one for one in (_start(secret), _start(secret[::-1], own=0)[::-1]) if one]


def _start(secret: str, own: int | None = None) -> str:
    labels = _LABELS.match(secret)
    own = (labels.end() if labels else 0) if own is None else own
    own = 0 if len(secret) - own < SHORTEST else own
    for end in range(own + SHORTEST, len(secret)):
        piece = secret[own:end]
        has_digit, has_letter = any(map(str.isdigit, piece)), any(map(str.isalpha, piece))
        is_mixed = not (piece.islower() or piece.isupper() or piece.istitle())
        if len(piece) >= 2 * SHORTEST or (has_digit and (has_letter or own)) or (own and is_mixed):
            return secret[:end]
    return ""


def _with_ends(text: str, end: str, secret: str) -> str:
    """Removes a beginning or an end of the secret with as much of the secret as stands next to it."""
    if secret.startswith(end):
        return _without_start(text, end, secret)
    return _without_start(text[::-1], end[::-1], secret[::-1], REMOVED[::-1])[::-1]


def _without_start(text: str, start: str, secret: str, instead: str = REMOVED) -> str:
    parts, at = [], 0
    for found in re.finditer(re.escape(start), text, re.IGNORECASE):
        if found.start() < at:
            continue
        n = len(start)
        while n < len(secret) and text[found.start() + n : found.start() + n + 1].lower() == (
            secret[n].lower()
        ):
            n += 1
        parts += [text[at : found.start()], instead]
        at = found.start() + n
    return "".join([*parts, text[at:]])
