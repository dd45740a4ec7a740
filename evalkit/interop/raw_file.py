"""A file as it came: how it begins, its text, its JSON - or the reason why nothing can read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalkit.errors import DataError

_BOM = b"\xef\xbb\xbf"
_OTHER = {  # by how a file begins, in lower case
    b"\x1f\x8b": "packed (gzip); unpack it first",
    b"\x28\xb5\x2f\xfd": "packed (zstd); unpack it first",
    b"bzh": "packed (bzip2); unpack it first",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"<!doctype": "no JSON and no table but a web page; download the file itself",
    b"<html": "no JSON and no table but a web page; download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; `git lfs pull` brings it",
}
_MOST_BYTES = 4 * 2**30


def start_of(path: Path) -> bytes:
    """How a file begins, without a byte order mark and blanks.

    Raises:
        DataError: It cannot be read, or is what no reader can read: packed, UTF-16, a web page, a pointer.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(_BOM).lstrip()
    except OSError as why:
        raise DataError(f"{path}: cannot read this file ({why.strerror}); check the path") from why
    other = next((told for begin, told in _OTHER.items() if start.lower().startswith(begin)), "")
    if other:
        raise DataError(f"{path}: is {other}")
    return start


def text_in(path: Path) -> str:
    """A file's text, without a byte order mark; its lines end alike, whichever system wrote them."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as why:
        raise DataError(f"{path}: not UTF-8 (byte {why.start + 1}); save it as UTF-8") from why


def read_json(path: Path, need: str) -> tuple[Any, bool]:
    """What a file of JSON or of JSON lines holds, and whether it is lines.

    Raises:
        DataError: It is damaged, or too large to be one run's answers.
    """
    if path.stat().st_size > _MOST_BYTES:
        size = f"{path.stat().st_size / 2**30:.0f} GB"
        raise DataError(f"{path}: {size}, too much to be one run's answers; split it")
    text = text_in(path)
    try:
        return json.loads(text), False
    except RecursionError as why:
        raise DataError(f"{path}: nested too deeply; {need}") from why
    except ValueError as why:
        if text.lstrip()[:1] == "[" and not _is_json(text.lstrip().split("\n", 1)[0]):
            told = f"not a whole JSON array ({why}); copy it again or export it anew"
            raise DataError(f"{path}: {told}") from why
    numbered = enumerate(text.split("\n"), start=1)
    return [_line(path, number, line) for number, line in numbered if line.strip()], True


def _line(path: Path, number: int, line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as why:
        torn = ", the file ends in the middle of a line" if line[-1:] != "}" else ""
        what = f"{path}:{number}: not JSON{torn} ({type(why).__name__}: {str(why)[:80]})"
        remedy = "write one JSON object on each line, or copy it again or export it anew"
        raise DataError(f"{what}; {remedy}") from why


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
