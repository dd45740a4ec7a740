"""The two files of a batch: the calls that are to be made, a line each, and what came back, in any order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.answers import journal
from evalkit.answers.endpoint.parameters import CALLS_TO
from evalkit.answers.endpoint.reply import NoAnswerError, answer
from evalkit.answers.evaluation import Evaluation
from evalkit.errors import DataError, ModelError
from evalkit.records import Answer
from evalkit.wording import told_by

MOST_REQUESTS = 50_000  # of one input file, and
MOST_BYTES = 200_000_000
_FILTERED = {"content_filter", "content_policy_violation"}
_NOT_ASKED = {"batch_expired", "batch_cancelled"}  # codes of calls that were not made


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input file, whole.

    Attributes:
        n: Calls in it.
    """

    content: bytes
    n: int

    @property
    def sha256(self) -> str:
        """What the file is known by."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call as it stands in an input file, and the key under which its answer is kept."""

    example_id: str
    sample: int
    key: str


def inputs(
    evaluation: Evaluation,
    known: Container[str] = (),
    *,
    most_requests: int = MOST_REQUESTS,
    most_bytes: int = MOST_BYTES,
) -> Iterator[Input]:
    """The calls of an evaluation whose keys are not known, each prompt once, as few files as the limits allow."""
    lines, size, written = list[bytes](), 0, set[str]()
    for call in evaluation.calls():
        if call.key in known or call.key in written:
            continue
        written.add(call.key)
        row = call.example
        body = evaluation.parameters.call(evaluation.model_name, row.messages, row.request)
        line = _line(f"{row.example_id}#{call.sample}", body)
        if lines and (len(lines) == most_requests or size + len(line) > most_bytes):
            yield Input(content=b"".join(lines), n=len(lines))
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield Input(content=b"".join(lines), n=len(lines))


def asked(path: Path, header: Mapping[str, Any]) -> dict[str, Asked]:
    """The calls of an input file by `custom_id`: what was asked says itself which answer it gets.

    Args:
        path: The file.
        header: Of the journal that is to hold the answers.

    Raises:
        DataError: It is not what this kit wrote.
    """
    parameters = header["parameters"]
    unsent = {name: parameters[name] for name in ("strip_think",) if name in parameters}
    found = {}
    try:
        for line in path.read_bytes().splitlines():
            record = json.loads(line)
            sent = dict(record["body"])
            name, _, sample = record["custom_id"].rpartition("#")
            model, messages = sent.pop("model"), sent.pop("messages")
            key = journal.call_key(
                model, header["endpoint"], {**sent, **unsent}, messages, int(sample)
            )
            found[record["custom_id"]] = Asked(example_id=name, sample=int(sample), key=key)
    except OSError as why:
        raise DataError(
            f"{path}: the input of a batch cannot be read ({why.strerror}); restore it from a copy"
        ) from why
    except (KeyError, TypeError, ValueError) as why:
        raise DataError(
            f"{path}: not the input of a batch ({why}); restore it from a copy"
        ) from why
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What came back for one call; `answer` is None where the call was not made, `custom_id` "" where nobody can read it."""

    custom_id: str
    answer: Answer | None


def answers(path: Path, named: str, *, strip_think: bool | None) -> Iterator[Line]:
    """The lines of an output or an error file, read as the replies of single calls are.

    Args:
        path: The file.
        named: What messages call it.
        strip_think: As in `reply.answer`.

    Raises:
        ModelError: It is no such file: a web page, or no line of it can be read.
    """
    with path.open("rb") as file:
        start = file.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip()
        if start[:1] not in (b"{", b""):
            what = "a web page" if start[:1] == b"<" else "no JSON lines"
            raise ModelError(f"{named} is {what}; nothing was taken, ask again later")
        file.seek(0)
        for line in file:
            if line.strip():
                yield _read(line.removeprefix(b"\xef\xbb\xbf"), strip_think)


def _read(line: bytes, strip_think: bool | None) -> Line:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, Mapping) or not isinstance(record.get("custom_id"), str):
        return Line(custom_id="", answer=None)
    return Line(custom_id=record["custom_id"], answer=_answer(record, strip_think))


def _answer(record: Mapping[str, object], strip_think: bool | None) -> Answer | None:
    reply, error = record.get("response"), record.get("error")
    if isinstance(error, Mapping) and error.get("code") in _NOT_ASKED:
        return None
    reply = reply if isinstance(reply, Mapping) else {}
    status, body = reply.get("status_code"), {"error": error} if error else reply.get("body")
    try:
        return answer(body, strip_think=strip_think)
    except NoAnswerError as why:
        told = f"{why}" if why.status or status in {200, None} else f"{status}: {why}"
        refused = bool(why.names & _FILTERED)
        return Answer(
            text="",
            outcome="refused" if refused else "error",
            finish_reason="content_filter" if refused else None,
            error=told_by(told),
        )


def _line(custom_id: str, body: Mapping[str, object]) -> bytes:
    record = {"custom_id": custom_id, "method": "POST", "url": CALLS_TO, "body": body}
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, default=dict)
    return text.encode("utf-8") + b"\n"
