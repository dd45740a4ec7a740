"""What is wrong with a sentence that code has put together, whatever its numbers: plural, article, doubled words, gaps."""

import re

_NOUNS = (
    "answer|chapter|day|example|item|label|loss|look|model|pair|problem|rater|rating|regression|request|row|run|setting|slice|"
    "test|user|value|vote|week"
)
_FAULTS = {
    "one of several": re.compile(rf"(?<![\d.,/%(−-])\b1 (?:more )?(?:“[^”]*” )?(?:{_NOUNS})(?:e?s)\b"),
    "several of one": re.compile(rf"(?<![\d.,−-])(?:0|[2-9]|\d[\d,]*\d) (?:more )?(?:{_NOUNS})\b(?![-=’'])"),
    "a before a vowel": re.compile(r"\b[Aa] (?=[aeioAEIO]\w|A/B|8\d*%?\b|11\b|18\b)"),
    "an before a consonant": re.compile(r"\b[Aa]n (?=[bcdfgjkpqtvwyzBCDGJKPQTVWYZ])"),
    "a word twice": re.compile(r"\b([A-Za-z]+) \1\b", re.IGNORECASE),
    "an empty fragment": re.compile(r"  |\(\s*\)|“”|\"\"|[,;:] ?[,;:.]| [.,;:]|\.\.|\b(None|nan|inf)\b|[{}]|^\s|\s$|^$"),
}  # fmt: skip


def faults(text):
    """The kinds of fault in a text, each with the words it stands in."""
    text = text.replace("...", "…")  # of a hash that is cut
    found = ((kind, fault.search(text)) for kind, fault in _FAULTS.items())
    return [
        f"{kind}: ...{text[max(0, at.start() - 30) : at.end() + 30]}..." for kind, at in found if at
    ]
