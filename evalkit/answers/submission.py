"""A model's missing answers asked for as batches: what was sent, how far it is, and its answers brought into the journal.

The state is a file beside the inputs, written before and after whatever changes something at the server. A kill between a
batch's creation and the state's write leaves the intent behind: the next step finds the batch by the hash of its input.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import httpx2
import openai
from openai import OpenAI

from evalkit.answers import journal
from evalkit.answers.endpoint import FILTERED, STOPS, key_and_address
from evalkit.answers.evaluation import CALLS_TO, Evaluation
from evalkit.answers.reply import NoAnswerError, answer, mapping, message_of, whole_number
from evalkit.errors import DataError, ModelError
from evalkit.files import JsonObject, alone, read_record, to_json, to_line, write_new, write_whole
from evalkit.ledger import sha256_of
from evalkit.records import Answer
from evalkit.wording import (
    count,
    known_secrets,
    listed,
    plural,
    told_by,
    without_secrets,
    without_secrets_in,
)

KIND, VERSION = "evalkit-submission", 1
MOST_REQUESTS = 50_000  # of one input file, and
MOST_BYTES = 200_000_000
_FIRST_WAIT_S, _LONGEST_WAIT_S, _GROWTH = 5.0, 300.0, 1.5
_NOT_ASKED = {"batch_expired", "batch_cancelled"}  # codes of calls that were not made


@dataclass(slots=True, kw_only=True)
class Part:
    """One input file and the batch made of it.

    Attributes:
        n: Calls in it.
        batch_id: "" until it is known that there is one.
        host: The server it was sent to.
    """

    sha256: str
    n: int
    file_id: str = ""
    batch_id: str = ""
    host: str = ""
    status: str = ""

    @property
    def words(self) -> str:
        """How far it is."""
        return self.status.replace("_", " ")


@dataclass(slots=True, kw_only=True)
class State:
    """What stands in the state's file.

    Attributes:
        header: Of the journal, as it was when the parts were written.
        parts: What was not collected yet.
        collected: Ids of batches whose answers are in a journal.
    """

    kind: str = KIND
    version: int = VERSION
    header: JsonObject
    parts: list[Part] = field(default_factory=list)
    collected: list[str] = field(default_factory=list)

    @property
    def open(self) -> list[Part]:
        """The parts that are with the server."""
        return [one for one in self.parts if one.batch_id]

    @property
    def lost(self) -> list[Part]:
        """The parts that are not, as far as is known."""
        return [one for one in self.parts if not one.batch_id]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One model's batches.

    Attributes:
        evaluation: What is to be asked; its journal gets the answers.
        path: The state's file.
        most_requests: Calls in one input file.
        most_bytes: Bytes of one.
    """

    evaluation: Evaluation
    path: Path
    most_requests: int = MOST_REQUESTS
    most_bytes: int = MOST_BYTES

    @cached_property
    def server(self) -> BatchApi:
        """Where batches are made, once something must be asked of it."""
        return BatchApi(self.evaluation)

    @property
    def journal(self) -> Path:
        """The journal that gets the answers."""
        return Path(str(self.evaluation.journal))

    def write(self, path: Path) -> Iterator[Path]:
        """Writes the input files and nothing else, the second as `name-2.jsonl`; yields each.

        Raises:
            DataError: One of them is there already.
        """
        for number, lines in enumerate(self._inputs(self._answered()), start=1):
            part = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
            if not write_new(part, b"".join(lines)):
                raise DataError(
                    f"{part}: is there already; name another file with --write-only, or move it away"
                )
            yield part

    def step(self) -> Iterator[str]:
        """Goes one step: sends what the journal lacks, or looks how far the batches are and collects; says each thing it did.

        Raises:
            ModelError: The server refuses, or does not answer; what was done is on record.
            DataError: The state, an input or the journal cannot be used.
        """
        with self._held() as state:
            self._check(state)
            is_all_sent = state.parts and not state.lost
            yield from self._polled(state) if is_all_sent else self._sent(state)

    def cancel(self) -> Iterator[str]:
        """Ends what is under way; what was answered is collected by the steps that follow.

        Raises:
            ModelError: As `step`.
        """
        with self._held() as state:
            self._find_lost(state)
            for part in state.open:
                job = self.server.job(part.batch_id)
                job = job if job.is_over else self.server.cancel(part.batch_id)
                part.status = job.status
                self._write(state)
                yield f"{part.batch_id}: {part.words}"
            if not state.open:
                yield "no batch is under way"

    def wait(self, *, pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
        """Steps to the end of what is under way, at growing intervals; says what changed.

        Raises:
            ModelError: As `step`; a server that is away for a while is waited for as long as `patience_s` says.
        """
        wait_s, away_s, said = _FIRST_WAIT_S, 0.0, list[str]()
        while self._state().open:
            pause(wait_s)
            try:
                told, away_s = list(self.step()), 0.0
            except AwayError as why:
                away_s += wait_s
                if away_s > self.evaluation.patience_s:
                    raise
                told = [f"{why}; asking again"]
            if told != said:
                yield from told
            said, wait_s = told, min(wait_s * _GROWTH, _LONGEST_WAIT_S)

    @contextmanager
    def _held(self) -> Iterator[State]:
        """One step at a time, whoever takes it; connections do not outlive it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(self.path.parent):
            try:
                yield self._state()
            finally:
                if server := vars(self).pop("server", None):
                    server.close()

    def _state(self) -> State:
        if not self.path.exists():
            return State(header=self.evaluation.header())
        said = "not the state of a batch"
        remedy = "restore it from a copy, or remove it to begin anew"
        found = read_record(self.path, State, said=said, remedy=remedy)
        if (found.kind, found.version) != (KIND, VERSION):
            told = f"{said} ({found.kind}, version {found.version})"
            raise DataError(f"{self.path}: {told}; {remedy}")
        return found

    def _write(self, state: State) -> None:
        write_whole(self.path, to_json(without_secrets_in(asdict(state))))

    def _check(self, state: State) -> None:
        """Refuses when what is under way is not what would be asked now."""
        now = without_secrets_in(self.evaluation.header())
        forget = f"or remove {self.path} to forget them"
        for part in state.open:
            if part.host != self.server.host:
                raise ModelError(
                    f"{part.batch_id} was sent to {part.host}, and OPENAI_BASE_URL names {self.server.host}; set it as it was, "
                    f"{forget}"
                )
        changed = [one for one in journal.BOUND if state.header.get(one) != now[one]]
        if state.open and changed:
            raise DataError(
                f"{self.path}: batches are under way that were asked with other {listed(changed)}; set it as it was until "
                f"they are collected, {forget}"
            )

    def _answered(self) -> set[str]:
        """Keys that the journal answers; it is refused now if it could not take the answers later."""
        if not self.journal.exists():
            return set()
        with journal.Writer(self.journal, self.evaluation.header()) as writer:
            return {call.key for call in self.evaluation.calls() if call.key in writer}

    def _inputs(self, known: set[str]) -> Iterator[list[bytes]]:
        """The lines of the calls whose keys are not known, each prompt once, as few files as the limits allow."""
        lines, size, written = list[bytes](), 0, {*known}
        asked = self.evaluation
        for call in asked.calls():
            if call.key in written:
                continue
            written.add(call.key)
            row = call.example
            body = asked.parameters.call(asked.model_name, row.messages, row.request)
            custom_id = f"{row.example_id}#{call.sample}"
            sent = {"custom_id": custom_id, "method": "POST", "url": CALLS_TO, "body": body}
            line = to_line(sent, ascii_only=False) + b"\n"
            if lines and (len(lines) == self.most_requests or size + len(line) > self.most_bytes):
                yield lines
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        if lines:
            yield lines

    def _file(self, part: Part) -> Path:
        return self.path.parent / f"{self.path.stem}-{Path(part.sha256).name[:12]}.jsonl"

    def _asked(self, part: Part, header: JsonObject) -> dict[str, str]:
        path = self._file(part)
        if sha256_of(path) not in {"", part.sha256}:
            raise DataError(
                f"{path}: is not the file that was sent as {part.batch_id}; restore it from a copy"
            )
        return _keys(path, header)

    def _find_lost(self, state: State) -> None:
        """Takes up batches of the same input that the state does not know: a kill, or whoever removed it, left them behind."""
        known = {*state.collected, *(one.batch_id for one in state.open)}
        for job in self.server.jobs() if state.lost else ():
            same = [one for one in state.lost if one.sha256 == job.input_sha256]
            same += [one for one in state.lost if one.file_id and one.file_id == job.input_file_id]
            if same and job.batch_id not in known:
                self._keep(state, same[0], job)

    def _keep(self, state: State, part: Part, job: Job) -> None:
        part.batch_id, part.status, part.host = job.batch_id, job.status, self.server.host
        self._write(state)

    def _sent(self, state: State) -> Iterator[str]:
        self._find_lost(state)
        for part in state.lost:  # never came to be a batch: written anew, by the settings of now
            self._file(part).unlink(missing_ok=True)
        state.parts = state.open
        asked = (self._asked(part, state.header).values() for part in state.parts)
        under_way = {key for keys in asked for key in keys}
        for lines in self._inputs(self._answered() | under_way):
            content = b"".join(lines)
            fresh = Part(sha256=hashlib.sha256(content).hexdigest(), n=len(lines))
            write_whole(self._file(fresh), content)
            state.parts.append(fresh)
        state.header = state.header if state.open else self.evaluation.header()
        self._write(state)
        self._find_lost(state)
        for part in state.open:
            yield f"{part.batch_id}: was sent before, {part.words}"
        for part in state.lost:
            part.file_id = self.server.upload(self._file(part))
            self._write(state)
            self._keep(state, part, self.server.create(part.file_id, part.sha256))
            yield f"{part.batch_id}: {plural(part.n, 'call')} sent to {part.host}, {part.words}"
        if not state.parts:
            yield f"{self.journal} lacks no answer; there is nothing to send"

    def _polled(self, state: State) -> Iterator[str]:
        for part in state.open:
            job = self.server.job(part.batch_id)
            part.status = job.status
            if not job.is_over:
                self._write(state)
                yield f"{job.batch_id}: {part.words}, {count(job.n_answered)} of {count(part.n)} calls answered"
                continue
            yield self._collected(part, job, state.header)
            state.parts.remove(part)
            state.collected.append(part.batch_id)
            self._write(state)
            self._file(part).unlink(missing_ok=True)
        if not state.open:
            yield self._standing()

    def _collected(self, part: Part, job: Job, header: JsonObject) -> str:
        """Brings a batch's answers into the journal; all of its files are read before the first is written."""
        wanted, lines = self._asked(part, header), list(self._lines(job, header))
        if lines and not any(custom_id in wanted for custom_id, _ in lines):
            raise ModelError(
                f"{job.batch_id}: none of {plural(len(lines), 'line')} that came is about a call that was sent; nothing was "
                f"taken, ask again later, or remove {self.path} to forget it"
            )
        first, told = dict[str, Answer](), Counter[str]()
        for custom_id, found in lines:
            if custom_id not in wanted:
                told["unknown" if custom_id else "unreadable"] += 1
            elif found is not None:
                before = first.get(custom_id)
                told["twice"] += before is not None
                if before is None or (before.outcome == "error" != found.outcome):
                    first[custom_id] = found
        with journal.Writer(self.journal, header) as writer:
            for custom_id, found in first.items():
                if (key := wanted[custom_id]) not in writer:
                    name, _, sample = custom_id.rpartition("#")
                    writer.append(key, name, int(sample), found)
        errors = f" ({job.errors})" if job.errors else ""
        return f"{job.batch_id}: {part.words}{errors}; {_told(part.n, first, told)}"

    def _lines(self, job: Job, header: JsonObject) -> Iterator[tuple[str, Answer | None]]:
        if job.n_answered and not job.output_file_id:
            raise ModelError(
                f"{job.batch_id}: {plural(job.n_answered, 'call')} answered, but no output file is named; ask again later"
            )
        files = {"output file": job.output_file_id, "error file": job.error_file_id}
        with tempfile.TemporaryDirectory(prefix="evalkit-batch-") as folder:
            path = Path(folder) / "lines.jsonl"
            for name, file_id in files.items():
                if file_id:
                    self.server.save(file_id, path)
                    yield from _answers(path, f"{job.batch_id}: its {name} {file_id}", header)

    def _standing(self) -> str:
        answered, n = self._answered(), self.evaluation.n_calls
        if lacks := sum(call.key not in answered for call in self.evaluation.calls()):
            return f"{plural(lacks, 'call')} of {count(n)} without an answer; the same command sends them again"
        return f"{self.journal} answers all {plural(n, 'call')}"


def _told(n: int, first: Mapping[str, Answer], told: Mapping[str, int]) -> str:
    errors = [one.error or "" for one in first.values() if one.outcome == "error"]
    parts = [f"{plural(len(first) - len(errors), 'answer')} of {count(n)}"]
    if errors:
        why, times = Counter(errors).most_common(1)[0]
        parts.append(f"{plural(len(errors), 'error')} ({count(times)} times: {why})")
    if missing := n - len(first):
        parts.append(f"{plural(missing, 'call')} without a line")
    more = {
        "twice": "came twice, the first answer counts",
        "unknown": "belong to no call that was sent",
        "unreadable": "cannot be read",
    }
    parts += [f"{plural(told[kind], 'line')} {said}" for kind, said in more.items() if told[kind]]
    return listed(parts)


def _keys(path: Path, header: JsonObject) -> dict[str, str]:
    """The keys of an input file's calls by `custom_id`: what was asked says itself which answer it gets.

    Args:
        path: The file.
        header: Of the journal that is to hold the answers.

    Raises:
        DataError: It is not what this kit wrote.
    """
    parameters, found = header["parameters"], dict[str, str]()
    unsent = {name: parameters[name] for name in ("strip_think",) if name in parameters}
    remedy = "restore it from a copy"
    try:
        for line in path.read_bytes().splitlines():
            record = json.loads(line)
            sent = {**record["body"], **unsent}
            asked = sent.pop("model"), header["endpoint"]
            messages, sample = sent.pop("messages"), record["custom_id"].rpartition("#")[2]
            found[record["custom_id"]] = journal.call_key(*asked, sent, messages, int(sample))
    except OSError as why:
        told = f"the input of a batch cannot be read ({why.strerror})"
        raise DataError(f"{path}: {told}; {remedy}") from why
    except (KeyError, TypeError, ValueError) as why:
        raise DataError(f"{path}: not the input of a batch ({why}); {remedy}") from why
    return found


def _answers(path: Path, named: str, header: JsonObject) -> Iterator[tuple[str, Answer | None]]:
    """Each `custom_id` of an output or an error file, "" where nobody can read it, and what came back for it.

    Lines are read as the replies of single calls are; None where the call was not made.

    Args:
        path: The file.
        named: What messages call it.
        header: Of the journal that is to hold the answers.

    Raises:
        ModelError: It is no such file: a web page, or no line of it can be read.
    """
    strip_think = header["parameters"].get("strip_think")
    with path.open("rb") as file:
        start = file.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip()
        if start[:1] not in (b"{", b""):
            what = "a web page" if start[:1] == b"<" else "no JSON lines"
            raise ModelError(f"{named} is {what}; nothing was taken, ask again later")
        file.seek(0)
        for line in filter(bytes.strip, file):
            try:
                record = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict) and isinstance(record.get("custom_id"), str):
                yield record["custom_id"], _answer(record, strip_think)
            else:
                yield "", None


def _answer(record: JsonObject, strip_think: bool | None) -> Answer | None:
    reply, error = record.get("response"), record.get("error")
    if isinstance(error, dict) and error.get("code") in _NOT_ASKED:
        return None
    reply = reply if isinstance(reply, dict) else {}
    status, body = reply.get("status_code"), {"error": error} if error else reply.get("body")
    try:
        return answer(body, strip_think=strip_think)
    except NoAnswerError as why:
        told = told_by(f"{why}" if why.status or status in {200, None} else f"{status}: {why}")
        if why.names & FILTERED:
            return Answer(text="", outcome="refused", finish_reason="content_filter", error=told)
        return Answer(text="", outcome="error", error=told)


T = TypeVar("T")
MARK = "evalkit_input"  # in a batch's metadata: SHA-256 of its input
_OVER = {"completed", "failed", "expired", "cancelled", "canceled"}  # some servers spell it so
_PAGES = 50  # of a hundred batches each: one that was lost is among the newest
_MOST_BYTES = 4 * 2**30
_NO_BATCHES = (
    "this server has no batches; --write-only FILE writes the input, to be sent by other means"
)
_REMEDIES = {**STOPS, 403: "this key may not use files and batches"}
_REMEDIES |= {404: _NO_BATCHES, 405: _NO_BATCHES}


class AwayError(ModelError):
    """The server does not answer now; asked later it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A batch as the server tells of it.

    Attributes:
        status: validating, in_progress, finalizing, cancelling; completed, failed, expired or cancelled when it is over.
        input_sha256: What its metadata says of its input; "" when that was not sent by this kit, or not kept.
        errors: Why the server would not begin it, in its words.
    """

    batch_id: str
    status: str
    input_sha256: str = ""
    input_file_id: str = ""
    output_file_id: str = ""
    error_file_id: str = ""
    n_answered: int = 0
    errors: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in _OVER


class BatchApi:
    """Files and batches behind an OpenAI-compatible address; no key in any message."""

    def __init__(self, asked: Evaluation) -> None:
        """Prepares the client by a run's address, time-out and attempts; nothing is sent yet.

        Raises:
            ModelError: Neither key nor address is known.
        """
        key, address = key_and_address(None, asked.base_url)
        self._secrets = known_secrets(key, address)
        how = {"timeout": asked.timeout_s, "max_retries": asked.attempts - 1}
        self._client = OpenAI(api_key=key, base_url=address, **how)
        self.host = self._client.base_url.host

    def upload(self, path: Path) -> str:
        """Sends an input file; returns its id."""
        made = self._asked(lambda: self._client.files.create(file=path, purpose="batch"))
        file_id = getattr(made, "id", None)
        if not isinstance(file_id, str) or not file_id:
            raise ModelError(f"{self.host}: took a file and told no id; {_NO_BATCHES}")
        return self._id(file_id)

    def create(self, file_id: str, input_sha256: str) -> Job:
        """Begins a batch; asked once only, since who repeats it pays twice."""
        body = {
            "input_file_id": file_id,
            "endpoint": CALLS_TO,
            "completion_window": "24h",
            "metadata": {MARK: input_sha256},
        }
        once = self._client.with_options(max_retries=0)
        return self._read(self._asked(partial(once.post, "/batches", cast_to=object, body=body)))

    def jobs(self) -> Iterator[Job]:
        """The batches of the account, as the server lists them: the newest first."""
        query: dict[str, object] = {"limit": 100}
        for _ in range(_PAGES):
            page = mapping(found := self._asked(partial(self._page, query)))
            if not isinstance(listing := page.get("data"), list):
                raise ModelError(f"{self.host}: {_no_record(found)} instead of a list of batches")
            jobs = [self._read(one) for one in listing]
            yield from jobs
            if not page.get("has_more") or not jobs or jobs[-1].batch_id == query.get("after"):
                return
            query = {**query, "after": jobs[-1].batch_id}

    def _page(self, query: Mapping[str, object]) -> object:
        return self._client.get("/batches", cast_to=object, options={"params": query})

    def job(self, batch_id: str) -> Job:
        """A batch as it stands."""
        return self._of(batch_id, partial(self._client.get, f"/batches/{batch_id}"))

    def cancel(self, batch_id: str) -> Job:
        """Ends a batch; what was answered stays."""
        return self._of(batch_id, partial(self._client.post, f"/batches/{batch_id}/cancel"))

    def save(self, file_id: str, path: Path) -> None:
        """Writes a file of the server's to `path`, piece by piece."""

        def saved() -> None:
            with self._client.files.with_streaming_response.content(file_id) as reply:
                n_bytes = 0
                with path.open("wb") as file:
                    for piece in reply.iter_bytes():
                        n_bytes += len(piece)
                        if n_bytes > _MOST_BYTES:
                            raise ModelError(
                                f"{self.host}: file {file_id} is larger than {_MOST_BYTES >> 30} GB"
                            )
                        file.write(piece)

        self._asked(saved, missing=f"has no file {file_id} any more")

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _of(self, batch_id: str, call: Callable[..., object]) -> Job:
        asking = partial(call, cast_to=object)
        return self._read(self._asked(asking, missing=f"knows no batch {batch_id}"))

    def _read(self, found: object) -> Job:
        job = mapping(found)
        batch_id, status = _text(job, "id"), _text(job, "status")
        if not batch_id or not status:
            raise ModelError(f"{self.host}: {_no_record(found)} instead of a batch")
        files = ("input_file_id", "output_file_id", "error_file_id")
        return Job(
            batch_id=self._id(batch_id),
            status=self._clean(status.lower()),
            input_sha256=_text(mapping(job.get("metadata")), MARK),
            **{name: _text(job, name) for name in files},
            n_answered=whole_number(mapping(job.get("request_counts")).get("completed")) or 0,
            errors=self._clean("; ".join(_errors(job.get("errors")))),
        )

    def _asked(self, call: Callable[[], T], *, missing: str = "") -> T:
        """What a call comes to; its exception stays in here, for it may hold the key.

        Raises:
            AwayError: The server does not answer now.
            ModelError: It refuses, or is no such server.
        """
        try:
            return call()
        except openai.APIStatusError as why:
            failed = self._refused(why, missing)
        except (openai.APIConnectionError, httpx2.HTTPError) as why:
            failed = AwayError(self._clean(f"{self.host}: no connection ({why.__cause__ or why})"))
        except (openai.OpenAIError, ValueError) as why:
            told = f"{self.host}: the reply is not JSON ({type(why).__name__})"
            failed = ModelError(self._clean(told))
        raise failed

    def _refused(self, why: openai.APIStatusError, missing: str) -> ModelError:
        status = why.status_code
        told = self._clean(f"{self.host}: {status}: {message_of(why.body, why.message)}")
        if status == 404 and missing:
            return ModelError(f"{self.host} {missing} ({told})")
        if status in {408, 425, 429} or status >= 500:
            is_broke = why.code == "insufficient_quota"
            return ModelError(f"{told}; top it up") if is_broke else AwayError(told)
        return ModelError("; ".join(filter(None, (told, _REMEDIES.get(status)))))

    def _id(self, told: str) -> str:
        """An id is kept as it is, in files too, so it cannot be one that holds a key."""
        if without_secrets(told, self._secrets) != told:
            raise ModelError(f"{self.host}: gives an id that holds a key; nothing of it was kept")
        return told

    def _clean(self, text: str) -> str:
        return told_by(text, self._secrets)


def _no_record(found: object) -> str:
    is_page = isinstance(found, str) and "<" in found[:200]
    return "a web page" if is_page else f"{type(found).__name__} without id and status"


def _errors(found: object) -> Iterator[str]:
    listing = found.get("data") if isinstance(found, Mapping) else found
    for one in filter(None, map(mapping, listing if isinstance(listing, list) else ())):
        where = f"line {one['line']}: " if one.get("line") else ""
        yield f"{where}{one.get('message') or one.get('code')}"


def _text(record: Mapping[str, object], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""
