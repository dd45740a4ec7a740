r"""Numbers become text, and model text becomes safe, here and nowhere else.

Characters that nobody sees hide text, turn it round, or drive a terminal: they are shown as codes such as \u202e. Line ends
and tabs stay. So do a variation selector behind the sign it belongs to, as in emoji, and Arabic number signs.

Secrets that this process knows - keys and passwords of its environment, of URLs, of a client - are taken out of texts. Exact,
never by a guess: a text changes only where a known secret stands in it, as it is, in another case or encoding, or cut off by
whoever wrote the text.
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import takewhile
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MINUS = "\u2212"
NOTHING = "\u2013"
_LONGEST_FAULT = 1_000  # characters
UNDEFINED = "interval undefined"

_SAYS_NOTHING = {  # as the value of a field alone
    *("yes", "no", "true", "false", "none", "null", "other", "unknown", "n/a", "(not given)"),
}
_FORMULA = {*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20"}  # the last four are their full-width twins
_KEY = re.compile(  # with three digits or a mask in it: "sk-learn-based" and "bearer certificate" are words
    r"(?i)\b(?:sk-|bearer\s+)(?=[\w\-.=]*?(?:\*|\d[\w\-.=]*?\d[\w\-.=]*?\d))[\w\-.=*]{8,}"
)

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"  # invisible, bidirectional
    "\u2800\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # half characters, and what XML forbids
    "\ufe00-\ufe0d\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # tags, further selectors
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(1, 17))
    + "]|(?<![^\\s\ufe00-\ufe0f])[\ufe0e\ufe0f]"
)
_METRICS = {"exact_match": "exact match", "normalised_exact": "normalised exact match"}
_SHAPE = "similarity rewards copying the shape of an answer, right or wrong"
_BY_ACCIDENT = {
    "all_lines_present": "all lines present rewards listing every candidate",
    "similarity": _SHAPE,
    "article_similarity": _SHAPE,
    "format": "format is right for a well-formed wrong answer",
    "exact_match": "exact match gives nothing for a right answer in other words",
}
SHOWN = {"better", "worse"}


def visible(text: str) -> str:
    """Plain text in which control, bidirectional and invisible characters and half characters stand as visible codes."""
    return UNSEEN.sub(lambda found: mark(found[0]), text)


def is_blank(text: str) -> bool:
    """Whether there is nothing to read in it."""
    return not UNSEEN.sub("", text).strip()


def mark(char: str) -> str:
    r"""The code that stands for a character.

    Example:
        >>> mark("\u202e"), mark("\U000e0041")
        ('\\u202e', '\\U000e0041')
    """
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def count(n: float) -> str:
    """A count with thousands separated: 3,764."""
    return f"{n:,.0f}".replace("-", MINUS)


def percent(rate: float | None, digits: int = 1) -> str:
    """A level in percent; an en dash when undefined.

    Example:
        >>> percent(0.223)
        '22.3%'
    """
    return NOTHING if rate is None else f"{rate * 100:.{digits}f}%".replace("-", MINUS)


def points(diff: float | None, digits: int = 1, *, sign: bool = True) -> str:
    """A difference of rates in points, with a true minus sign and no sign on zero.

    Example:
        >>> points(0.1933), points(-0.05), points(0.0)
        ('+19.3', '−5.0', '0.0')
    """
    if diff is None:
        return NOTHING
    text = f"{abs(diff) * 100:.{digits}f}"
    return ("" if float(text) == 0 or not sign else "+" if diff > 0 else MINUS) + text


def decimals(estimate: float | None, low: float | None = None, high: float | None = None) -> int:
    """Decimals that show a difference in points: one; more where its interval is a point wide or less.

    A difference that is shown never reads 0.0.

    Example:
        >>> decimals(0.05, 0.01, 0.09), decimals(7e-5, 4e-5, 1e-4), decimals(7e-5)
        (1, 4, 3)
    """
    places = 1
    if low is not None and high is not None and low < high:
        places = min(4, max(1, 2 - math.ceil(math.log10((high - low) * 100))))
    shown = low is None or high is None or low * high > 0
    if estimate and shown and abs(estimate) > 1e-9:
        places = max(places, -math.floor(math.log10(abs(estimate) * 100)))
    return places


def amount(diff: float | None, scale: str = "points", *, digits: int = 1, sign: bool = True) -> str:
    """A difference with its unit: points for rates, a plain number for scores such as similarity.

    Example:
        >>> amount(0.05), amount(-0.05, sign=False), amount(0.05, "number")
        ('+5.0 points', '5.0 points', '+0.050')
    """
    if diff is None:
        return NOTHING
    if scale == "points":
        return f"{points(diff, digits, sign=sign)} points"
    return signed(diff) if sign else signed(abs(diff)).lstrip("+")


def loss(margin: float | None, scale: str = "points") -> str:
    """A margin as people say it.

    Example:
        >>> loss(0.02), loss(0.01), loss(0.005, "number")
        ('2 points', '1 point', '0.005')
    """
    if margin is None or scale == "number":
        return NOTHING if margin is None else f"{margin:g}"
    size = f"{margin * 100:g}"
    return f"{size} {'point' if size == '1' else 'points'}"


def limits(low: float | None, high: float | None, scale: str = "points", *, digits: int = 1) -> str:
    """Both limits of an interval: "+1.0 to +9.0"; that there is none, where there is none."""
    if low is None and high is None:
        return UNDEFINED
    if scale == "number":
        return f"{signed(low)} to {signed(high)}"
    text = percent if scale == "percent" else points
    return f"{text(low, digits)} to {text(high, digits)}"


def effect_and_ends(gate: Any) -> tuple[str, str]:
    """A layer's effect at the gate, and its interval's ends ("interval undefined" without any); people's choice in percent."""
    value, low, high = gate.estimate, gate.ci_low, gate.ci_high
    if value is None:
        return NOTHING, UNDEFINED
    if gate.layer == "human":
        ends = [None if end is None else end + 0.5 for end in (low, high)]
        said = " to ".join(percent(end).rstrip("%") for end in ends)
        return percent(value + 0.5), UNDEFINED if low is high is None else said
    digits = decimals(value, low, high)
    size = amount(value, gate.scale, digits=digits).removesuffix(" points")
    return size, limits(low, high, gate.scale, digits=digits)


def effect_text(gate: Any) -> str:
    """A layer's effect at the gate with its interval: "+19.3 (+14.4 to +24.7)", or for human rating in percent."""
    size, ends = effect_and_ends(gate)
    return size if gate.estimate is None else f"{size} ({ends})"


def effect(test: Any, *, sign: bool = True) -> str:
    """A test's difference with its interval, in its own scale: "+5.0 points (95% interval +1.0 to +9.0)"."""
    scale, digits = scale_of(test), decimals(test.estimate, test.ci_low, test.ci_high)
    size = amount(test.estimate, scale, digits=digits, sign=sign)
    return f"{size} ({interval(test.ci_low, test.ci_high, scale=scale, digits=digits, alpha=test.alpha)})"


def scale_of(test: Any) -> str:
    """How a test's difference is written: in points, or as a plain number."""
    return "number" if test.shown_in() == "number" else "points"


def level(rate: float | None, scale: str = "points") -> str:
    """A level: a percentage for rates, a plain number for scores such as similarity."""
    return percent(rate) if scale == "points" else number(rate)


def times(chance: float) -> str:
    """A chance in words.

    Example:
        >>> times(0.8), times(0.41), times(0.99), times(0.01)
        ('4 times in 5', '4 times in 10', 'more than 19 times in 20', 'less than 1 time in 20')
    """
    if not 0.05 <= chance <= 0.95:
        return "less than 1 time in 20" if chance < 0.05 else "more than 19 times in 20"
    tenths = min(9, max(1, round(chance * 10)))
    return "4 times in 5" if tenths == 8 else f"{tenths} time{'' if tenths == 1 else 's'} in 10"


def number(value: float | None, digits: int = 2) -> str:
    """A plain number; an en dash when undefined."""
    return NOTHING if value is None else f"{value:,.{digits}f}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """A difference of plain numbers with its sign, to about three figures; an en dash when undefined.

    Example:
        >>> signed(0.0123), signed(-412.4), signed(0.0), signed(0.00004)
        ('+0.012', '−412', '0.000', '+0.00004')
    """
    if value is None:
        return NOTHING
    places = 0 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    if 1e-9 < abs(value) < 0.0005:
        places = -math.floor(math.log10(abs(value)))
    text = f"{abs(value):,.{places}f}"
    return ("" if not text.strip("0.") else "+" if value > 0 else MINUS) + text


def p_text(p_value: float | None) -> str:
    """A p-value: two decimals from 0.10, three below, never 0.0000.

    Example:
        >>> p_text(0.2345), p_text(0.0312), p_text(0.0004), p_text(7e-13), p_text(None)
        ('0.23', '0.031', '0.0004', '< 0.0001', '–')
    """
    if p_value is None:
        return NOTHING
    if p_value < 0.0001:
        return "< 0.0001"
    if p_value < 0.001:
        return f"{p_value:.4f}"
    return f"{p_value:.3f}" if p_value < 0.10 else f"{p_value:.2f}"


def p_phrase(p_value: float | None) -> str:
    """A p-value with its sign: `= 0.031` or `< 0.0001`."""
    text = p_text(p_value)
    return text if text.startswith("<") or p_value is None else f"= {text}"


def share(k: int, n: int) -> str:
    """A share with its count: "6 of 96 (6.2%)"; the percent first once n is 100 or more."""
    if n == 0:
        return f"{k} of 0"
    part, rate = f"{count(k)} of {count(n)}", percent(k / n)
    return f"{part} ({rate})" if n < 100 else f"{rate} ({part})"


def did_you_mean(given: str, known: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """The end of a refusal: the nearest known name, as it is `shown`; empty when none is near."""
    import difflib

    near = difflib.get_close_matches(given, [*known], n=1)
    return f"; did you mean {shown(near[0])}?" if near else ""


def minute(at: str) -> str:
    """A time as files hold it, to the minute: "2026-11-28T10:00:42+00:00" is "2026-11-28 10:00"."""
    return at[:16].replace("T", " ")


def plural(n: int, noun: str, nouns: str = "") -> str:
    """A count with its noun: "1 note", "3 notes"."""
    return f"{count(n)} {noun if n == 1 else nouns or noun + 's'}"


def capital(text: str) -> str:
    """A text with a capital letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def article(noun: str) -> str:
    """A noun with "A" or "An" before it; of our own nouns one begins with a letter that is spelt: "An A/B test".

    Example:
        >>> article("A/B test"), article("benchmark"), article("example")
        ('An A/B test', 'A benchmark', 'An example')
    """
    return f"{'An' if noun[:1].lower() in 'aeio' else 'A'} {noun}"


def listed(words: list[str]) -> str:
    """A sentence's list: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def examples_of(slice_name: str, n: int = 0) -> str:
    """The examples of a slice as people say it; the field is named only where its value alone would say nothing.

    Example:
        >>> examples_of("kind = two diagnoses"), examples_of("n_lines = 3"), examples_of("kind = new", 1)
        ('“two diagnoses” examples', 'examples with n lines 3', '“new” example')
    """
    field, _, value = visible(slice_name).partition(" = ")
    noun = "example" if n == 1 else "examples"
    if not value:
        return f"“{field}” {noun}"
    if value.lower() in _SAYS_NOTHING or not any(char.isalpha() for char in value):
        return f"{noun} with {field.replace('_', ' ')} {value}"
    return f"“{value}” {noun}"


def interval(
    low: float | None,
    high: float | None,
    *,
    scale: str = "points",
    digits: int = 1,
    alpha: float = 0.05,
) -> str:
    """An interval in words: "95% interval +14.4 to +24.7"; that it is undefined, where it is."""
    ends = limits(low, high, scale, digits=digits)
    return ends if ends == UNDEFINED else f"{confidence(alpha)} interval {ends}"


def confidence(alpha: float) -> str:
    """The confidence that goes with a level, in percent, to three figures."""
    return f"{(1 - alpha) * 100:.4g}%"


def cleaned(text: str) -> tuple[str, bool]:
    """Replaces lone surrogates, which no file, database or table can hold, and says whether it had to."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return safe, safe != text


def whole(value: object) -> Any:
    r"""Plain values, as JSON or YAML hold them, with every text `cleaned`: what a file may escape, no other can keep.

    Example:
        >>> whole({"title": "a\ud800b", "n": [1]})
        {'title': 'a\\ud800b', 'n': [1]}
    """
    if isinstance(value, str):
        return cleaned(value)[0]
    if isinstance(value, Mapping):
        return {whole(name): whole(one) for name, one in value.items()}
    return [whole(one) for one in value] if isinstance(value, list | tuple) else value


def flattened(content: object) -> str:
    """Message content as text: a string as it is, the text parts of a list joined, anything else is no text.

    Example:
        >>> flattened([{"type": "text", "text": "one "}, {"type": "text", "text": "answer"}]), flattened(None)
        ('one answer', '')
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") if isinstance(part, Mapping) else part for part in content)
    return "".join(text for text in texts if isinstance(text, str))


def redacted(message: str, secrets: Iterable[str] | None = None) -> str:
    """A message of a server or an exception without known secrets, and without what is shaped like a key.

    Texts of examples and answers go through `without_secrets` alone, which guesses nothing.
    """
    return _KEY.sub(REMOVED, without_secrets(message, secrets))


def told_by(text: str, secrets: Iterable[str] | None = None) -> str:
    """What a server says of a fault, as it is kept: no key, whole characters, and not more than people read."""
    return redacted(cleaned(text)[0], secrets)[:_LONGEST_FAULT]


def render_text(text: object) -> str:
    """Model text as HTML: escaped, unseen characters shown as chips, isolated from the text around it.

    This is the only way by which model text reaches HTML.
    """
    shown = UNSEEN.sub(
        lambda found: f'<code class="ek-chip">{mark(found[0])}</code>', html.escape(str(text))
    )
    return f'<bdi class="ek-text tex2jax_ignore mathjax_ignore">{shown}</bdi>'


def html_table(rows: Mapping[str, object]) -> str:
    """A small two-column table, names to values, everything escaped."""
    body = "".join(
        f"<tr><th scope='row'>{render_text(name)}</th><td>{render_text('' if value is None else value)}</td></tr>"
        for name, value in rows.items()
    )
    return f'<div class="tex2jax_ignore mathjax_ignore"><table class="ek-result"><tbody>{body}</tbody></table></div>'


def for_spreadsheet(text: str) -> str:
    """Text that no spreadsheet runs as a formula; for exports meant for people only."""
    return f"'{text}" if text[:1] in _FORMULA or text.lstrip()[:1] in _FORMULA else text


# ---- metrics, their levels and differences


def label(metric: str) -> str:
    """A metric's name in words.

    Example:
        >>> label("all_lines_present")
        'all lines present'
    """
    return _METRICS.get(metric, metric.replace("_", " "))


def are(n: int) -> str:
    """The verb after a count."""
    return "is" if n == 1 else "are"


def stated(test: Any) -> str:
    """Verdict, size and interval in one phrase; the interval is never left out.

    Example:
        >>> from evalkit.stats import paired_binary_test
        >>> stated(paired_binary_test(250, 10, 8, 32))
        'no difference shown, +0.7 points (95% interval −2.3 to +3.7)'
    """
    if test.estimate is None:
        return "nothing can be said, no examples"
    if test.verdict in SHOWN:
        return f"{test.verdict} by {effect(test, sign=False)}"
    return f"{test.verdict}, {effect(test)}"


def size(test: Any) -> str:
    """A difference with its interval, without its unit: "+10.7 (+6.7 to +15.2)"."""
    low, high, scale = test.ci_low, test.ci_high, scale_of(test)
    digits = decimals(test.estimate, low, high)
    ends = "" if low is None else f" ({limits(low, high, scale, digits=digits)})"
    return f"{amount(test.estimate, scale, digits=digits).removesuffix(' points')}{ends}"


def level_of(rate: Any) -> str:
    """A rate in percent, a mean with two decimals."""
    if rate is None or rate.estimate is None:
        return NOTHING
    return (percent if rate.method == "Wilson" else number)(rate.estimate)


def loss_of(margin: float | None, test: Any) -> str:
    """A margin in the unit of the difference that is held against it."""
    return loss(margin, scale_of(test))


def value_of(result: Any, at: float | None) -> str:
    """A share of the result in percent, agreement beyond chance as a plain number."""
    return (number if result.scale == "number" else percent)(at)


def ends_of(result: Any) -> str:
    """Both ends of its interval."""
    return f"{value_of(result, result.ci_low)} to {value_of(result, result.ci_high)}"


def interval_of(result: Any) -> str:
    """Its interval with the level: "95% interval 45.6% to 54.4%"."""
    return f"{confidence(result.alpha)} interval {ends_of(result)}"


def levels(old: float | None, new: float | None, test: Any) -> str:
    """Both models' levels in the unit of their difference: "25.0% to 60.0%"."""
    return f"{level(old, scale_of(test))} to {level(new, scale_of(test))}"


def moves(estimate: float) -> str:
    """The way of a shown difference: what should fall is better when it falls."""
    return "rises" if estimate > 0 else "falls"


def against(said: str, margin: float | None, test: Any) -> str:
    """What is said against a margin, as the end of a sentence; any other verdict as it is.

    Example:
        >>> from evalkit.stats import paired_binary_test
        >>> test = paired_binary_test(250, 10, 8, 32)
        >>> against("not worse", 0.02, test), against("not shown", 0.02, test)
        ('not worse by more than 2 points', 'a loss of 2 points is not ruled out')
    """
    lost = loss(margin, scale_of(test))
    kept, open_ = f"not worse by more than {lost}", f"a loss of {lost} is not ruled out"
    return {"not worse": kept, "not shown": open_}.get(said, said)


def measured(field: str) -> tuple[str, str]:
    """What a field of an answer measures, and its unit."""
    if field == "latency_ms":
        return "latency", "ms"
    return field.replace("_tokens", " length").replace("_", " "), "tokens"


def methods(tests: Iterable[Any]) -> str:
    """The methods behind some tests, each once, in the order they come.

    Example:
        >>> from evalkit.stats import paired_binary_test, paired_mean_test
        >>> methods([paired_binary_test(5, 3, 2, 1), paired_mean_test([0.1, 0.3])])
        'McNemar mid-p with Tango intervals; paired t'
    """
    names = dict.fromkeys(str(one.method) for one in tests)
    tango = {"McNemar mid-p": "McNemar mid-p with Tango intervals"}
    return "; ".join(tango.get(name, name) for name in names) or "No test"


def rewarded_by_accident(metrics: Iterable[str]) -> str:
    """What each metric rewards without meaning to; "" when that is known of none of them."""
    known = dict.fromkeys(filter(None, map(_BY_ACCIDENT.get, metrics)))
    return f"What the metrics reward by accident: {'; '.join(known)}." if known else ""


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
        if found.start() >= at:
            parts += [text[at : found.start()], instead]
            beside = zip(text[found.start() : found.start() + len(secret)], secret, strict=False)
            same = takewhile(lambda two: two[0].lower() == two[1].lower(), beside)
            at = max(found.end(), found.start() + len([*same]))
    return "".join([*parts, text[at:]])
