"""Logs of Inspect (`inspect_ai`), as `.json` and as `.eval`, read without it and a sample at a time.

Fields: https://inspect.aisi.org.uk/eval-logs.html. A log of version 2 or 3; killed and cancelled runs as far as they came.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import msgspec
import pyarrow as pa

from evalkit.conversation import Message, spoken
from evalkit.errors import DataError
from evalkit.files import JsonObject
from evalkit.interop import logs
from evalkit.interop.logs import Log, Row
from evalkit.wording import plural, whole

CONVERT = "`inspect log convert --to json --output-dir OUT FILE` writes it anew"
MOST_BYTES = 512 * 2**20  # of one member; a sample of an agent's run has some 10 MB
# a log shrinks to a tenth, seldom to a hundredth; a bomb to a thousandth
MOST_RATIO, LARGE = 500, 16 * 2**20
_VERSIONS = (1, 2, 3)
_ZSTD = 93


class _Message(msgspec.Struct, gc=False):
    role: str = "user"
    content: object = None
    tool_calls: list[object] | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message = msgspec.field(default_factory=_Message)
    stop_reason: str | None = None


class _Output(msgspec.Struct, gc=False):
    model: str | None = None
    choices: list[_Choice] = []
    completion: str | None = None
    error: object = None


class _Score(msgspec.Struct, gc=False):
    value: object = None


class _Sample(msgspec.Struct, gc=False):
    id: str | int
    epoch: int = 1
    input: str | list[_Message] = ""
    choices: list[str] | None = None
    target: str | list[str] = ""
    output: _Output | None = None
    score: _Score | None = None
    scores: dict[str, _Score] | None = None
    metadata: JsonObject | None = None
    error: object = None
    total_time: float | None = None
    model_usage: dict[str, JsonObject] | None = None
    attachments: dict[str, str] | None = None


class _Eval(msgspec.Struct, gc=False):
    model: str = ""
    run_id: str = ""
    created: str = ""
    packages: JsonObject | None = None


class _Version(msgspec.Struct, gc=False):
    version: int = 1


class _Head(_Version, kw_only=True):
    eval: _Eval
    status: str = "started"
    samples: list[msgspec.Raw] | None = None


_Read = TypeVar("_Read")
_VERSION = msgspec.json.Decoder(_Version)
_HEAD, _SAMPLE = msgspec.json.Decoder(_Head), msgspec.json.Decoder(_Sample)


def _decoded(decoder: msgspec.json.Decoder[_Read], text: bytes | mmap) -> _Read:
    """The object; NaN, Infinity and half characters, which Inspect writes too, are damage to msgspec."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as why:
        text = bytes(text)
        try:
            plain = json.loads(text, parse_constant=lambda _: None)
        except ValueError:
            raise why from None
        plain = whole(plain) if b"\\ud" in text.lower() else plain
        return decoder.decode(msgspec.json.encode(plain))


def read(path: Path) -> Log:
    """Reads a log.

    Raises:
        DataError: It is damaged, of another version, or holds no samples.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as log:
                head, samples = _zipped(log, path)
                rows = tuple(_row(_decoded(_SAMPLE, one)) for one in samples)
        else:
            with path.open("rb") as file:
                head = _head(mmap(file.fileno(), 0, access=ACCESS_READ), path)
            rows = tuple(_row(_decoded(_SAMPLE, bytes(one))) for one in head.samples or ())
    except (msgspec.DecodeError, zipfile.BadZipFile, EOFError, struct.error, OSError) as why:
        raise DataError(
            f"{path}: not a whole log of Inspect ({why}); copy it again, or {CONVERT}"
        ) from why
    finished = f"it holds the {plural(len(rows), 'sample')} that were finished"
    unfinished = f"the run's status is {head.status!r}: {finished}"
    return Log(
        path=path,
        tool=f"Inspect {(head.eval.packages or {}).get('inspect_ai', '')}".strip(),
        model=head.eval.model,
        run=head.eval.run_id,
        made_at=head.eval.created,
        rows=rows,
        notes=() if head.status == "success" else (unfinished,),
    )


def _head(content: bytes | mmap, path: Path) -> _Head:
    version = _decoded(_VERSION, content).version
    if version not in _VERSIONS:
        raise DataError(
            f"{path}: a log of Inspect's version {version}, this evalkit reads {_VERSIONS[0]} to {_VERSIONS[-1]}; "
            f"update evalkit, or with an older Inspect {CONVERT}"
        )
    return _decoded(_HEAD, content)


def _zipped(log: zipfile.ZipFile, path: Path) -> tuple[_Head, Iterator[bytes]]:
    members = {one.filename: one for one in log.infolist()}
    if bad := [name for name in members if name.startswith("/") or ".." in name.split("/")]:
        raise DataError(
            f"{path}: holds a file {bad[0]!r}, which Inspect does not write; ask who made it"
        )
    heads = [one for one in ("header.json", "_journal/start.json") if one in members]
    if not heads:
        raise DataError(
            f"{path}: a ZIP file, but no log of Inspect: neither header.json nor _journal/start.json"
        )
    sizes = [one.file_size for one in members.values()]
    packed = sum(one.compress_size for one in members.values())
    if max(sizes) > MOST_BYTES or sum(sizes) > max(LARGE, MOST_RATIO * packed):
        raise DataError(
            f"{path}: unpacks to {sum(sizes) / 2**20:,.0f} MB, {sum(sizes) // max(packed, 1)} times its size, "
            "which no log does; nothing was read"
        )
    named = [name for name in members if name.startswith("samples/") and name.endswith(".json")]
    samples = (_member(log, members[name]) for name in named)
    return _head(_member(log, members[heads[0]]), path), samples


def _member(log: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """One file of a ZIP, no more of it than it says; `zipfile` itself knows zstd from Python 3.14 on only."""
    if member.compress_type == _ZSTD:
        raw = cast("BinaryIO", log.fp)
        raw.seek(member.header_offset)
        *_, n_name, n_extra = struct.unpack("<4s5H3L2H", raw.read(30))
        raw.seek(n_name + n_extra, 1)
        packed = pa.BufferReader(raw.read(member.compress_size))
        file = pa.CompressedInputStream(packed, "zstd")
    else:
        file = log.open(member)
    with file:
        text = file.read(member.file_size + 1)
    if len(text) != member.file_size:
        raise zipfile.BadZipFile(f"{member.filename} has not the size it names")
    return text


def _row(one: _Sample) -> Row:
    output = one.output or _Output()
    choice = output.choices[0] if output.choices else _Choice()
    text = logs.text_of(choice.message.content) or output.completion or ""
    if not text and choice.message.tool_calls:
        text = spoken({"tool_calls": choice.message.tool_calls})
    unfinished = "the sample was not finished" if one.output is None else ""
    error = logs.fault(one.error) or logs.fault(output.error) or unfinished
    given = one.scores or ({"score": one.score} if one.score else {})  # version 1 has one, unnamed
    used = one.model_usage or {}
    usage = used.get(output.model or "") or next(iter(used.values()), {})
    return Row(
        example_id=str(one.id),
        sample=one.epoch - 1,
        messages=tuple(_messages(one)),
        expected=logs.texts_of([one.target] if isinstance(one.target, str) else one.target),
        answer=replace(
            logs.answered(_attached(text, one), error, choice.stop_reason),
            latency_ms=None if one.total_time is None else one.total_time * 1_000,
            prompt_tokens=usage.get("input_tokens"),
            completion_tokens=usage.get("output_tokens"),
            served_model=output.model,
            scores=logs.scores_of("inspect", [(name, one.value) for name, one in given.items()]),
        ),
        slices=logs.labels_of(one.metadata or {}),
    )


def _messages(one: _Sample) -> Iterator[Message]:
    given = [_Message(content=one.input)] if isinstance(one.input, str) else one.input
    listing = "".join(f"\n{chr(65 + n)}) {text}" for n, text in enumerate(one.choices or ()))
    for n, message in enumerate(given, start=1):
        text = _attached(logs.text_of(message.content), one)
        made = {"role": message.role, "content": text + (listing if n == len(given) else "")}
        yield made | ({"tool_calls": message.tool_calls} if message.tool_calls else {})


def _attached(text: str, one: _Sample) -> str:
    if "attachment://" not in text:
        return text
    for name, content in (one.attachments or {}).items():
        if len(content) < MOST_BYTES and not content.startswith("data:"):
            text = text.replace(f"attachment://{name}", content)
    return text
