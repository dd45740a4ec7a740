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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import httpx2
import msgspec
import openai

from evalkit import files, wording
from evalkit.answers import endpoint, journal, reply
from evalkit.answers.evaluation import CALLS_TO, Evaluation
from evalkit.errors import DataError, ModelError
from evalkit.files import JsonObject
from evalkit.ledger import sha256_of
from evalkit.records import Answer
from evalkit.wording import count, plural

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


@dataclass(slots=True, kw_only=True)
class State:
    """What stands in the state's file.

    Attributes:
        header: Of the journal, as it was when the parts were written.
        parts: What was not collected yet.
        collected: Ids of batches whose answers are in a journal.
    """

    kind: Literal["evalkit-submission"] = "evalkit-submission"
    version: Literal[1] = 1
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
            if not files.write_new(part, b"".join(lines)):
                raise DataError(f"{part}: is there already; name another file, or move it away")
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
                yield f"{part.batch_id}: {part.status}"
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
        with files.alone(self.path.parent):
            try:
                yield self._state()
            finally:
                if server := vars(self).pop("server", None):
                    server.close()

    def _state(self) -> State:
        if not self.path.exists():
            return State(header=self.evaluation.header())
        remedy = "restore it from a copy, or remove it to begin anew"
        return files.read_record(self.path, State, said="not the state of a batch", remedy=remedy)

    def _write(self, state: State) -> None:
        files.write_whole(self.path, files.to_json(wording.without_secrets_in(asdict(state))))

    def _check(self, state: State) -> None:
        """Refuses when what is under way is not what would be asked now, or not where."""
        now = wording.without_secrets_in(self.evaluation.header())
        changed = [one for one in journal.BOUND if state.header.get(one) != now[one]]
        if any(part.host != self.server.host for part in state.open):
            changed.append("OPENAI_BASE_URL")
        if state.open and changed:
            raise DataError(
                f"{self.path}: batches are under way that were asked with other {wording.listed(changed)}; set it as it was "
                f"until they are collected, or remove {self.path} to forget them"
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
            line = files.to_line(sent, ascii_only=False) + b"\n"
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
        """The keys of a part's calls by `custom_id`: what was asked says itself which answer it gets."""
        path, keys = self._file(part), dict[str, str]()
        if sha256_of(path) != part.sha256:
            told = f"is not there, or is not the file that was sent as {part.batch_id}"
            raise DataError(f"{path}: {told}; restore it from a copy")
        unsent = {k: v for k, v in header["parameters"].items() if k == "strip_think"}
        for line in path.read_bytes().splitlines():
            sent = json.loads(line)
            body, sample = sent["body"] | unsent, int(sent["custom_id"].rpartition("#")[2])
            asked = body.pop("model"), header["endpoint"]
            messages = body.pop("messages")
            keys[sent["custom_id"]] = journal.call_key(*asked, body, messages, sample)
        return keys

    def _find_lost(self, state: State) -> None:
        """Takes up batches of the same input that the state does not know: a kill, or whoever removed it, left them behind."""
        known = {*state.collected, *(one.batch_id for one in state.open)}
        for job in self.server.jobs() if state.lost else ():
            same = [one for one in state.lost if one.sha256 == (job.metadata or {}).get(MARK)]
            same += [one for one in state.lost if one.file_id and one.file_id == job.input_file_id]
            if same and job.id not in known:
                self._keep(state, same[0], job)

    def _keep(self, state: State, part: Part, job: Job) -> None:
        part.batch_id, part.status, part.host = job.id, job.status, self.server.host
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
            files.write_whole(self._file(fresh), content)
            state.parts.append(fresh)
        state.header = state.header if state.open else self.evaluation.header()
        self._write(state)
        self._find_lost(state)
        for part in state.open:
            yield f"{part.batch_id}: was sent before, {part.status}"
        for part in state.lost:
            part.file_id = self.server.upload(self._file(part))
            self._write(state)
            self._keep(state, part, self.server.create(part.file_id, part.sha256))
            yield f"{part.batch_id}: {plural(part.n, 'call')} sent to {part.host}, {part.status}"
        if not state.parts:
            yield f"{self.journal} lacks no answer; there is nothing to send"

    def _polled(self, state: State) -> Iterator[str]:
        for part in state.open:
            job = self.server.job(part.batch_id)
            part.status = job.status
            if not job.is_over:
                self._write(state)
                yield f"{job.id}: {job.status}, {count(job.n_answered)} of {count(part.n)} calls answered"
                continue
            yield self._collected(part, job, state.header)
            state.parts.remove(part)
            state.collected.append(part.batch_id)
            self._write(state)
            self._file(part).unlink(missing_ok=True)
        if not state.open:
            answered, n = self._answered(), self.evaluation.n_calls
            lacks = sum(call.key not in answered for call in self.evaluation.calls())
            without = f"{plural(lacks, 'call')} of {count(n)} without an answer; the same command sends them again"
            yield without if lacks else f"{self.journal} answers all {plural(n, 'call')}"

    def _collected(self, part: Part, job: Job, header: JsonObject) -> str:
        """Brings a batch's answers into the journal; all of its files are read before the first is written."""
        wanted, lines = self._asked(part, header), list(self._lines(job, header))
        if lines and not any(custom_id in wanted for custom_id, _ in lines):
            raise ModelError(
                f"{job.id}: none of {plural(len(lines), 'line')} that came is about a call that was sent; nothing was "
                f"taken, ask again later, or remove {self.path} to forget it"
            )
        first, n_left_out = dict[str, Answer](), 0
        for custom_id, found in lines:
            before = first.get(custom_id)
            n_left_out += custom_id not in wanted or (found is not None and before is not None)
            is_better = before is None or before.outcome == "error"
            if custom_id in wanted and found is not None and is_better:
                first[custom_id] = found
        with journal.Writer(self.journal, header) as writer:
            for custom_id, found in first.items():
                if (key := wanted[custom_id]) not in writer:
                    name, _, sample = custom_id.rpartition("#")
                    writer.append(key, name, int(sample), found)
        errors = [one.error for one in first.values() if one.outcome == "error"]
        told = [f"{plural(len(first) - len(errors), 'answer')} of {count(part.n)}"]
        if errors:
            why, times = Counter(errors).most_common(1)[0]
            told.append(f"{plural(len(errors), 'error')} ({count(times)} times: {why})")
        if missing := part.n - len(first):
            told.append(f"{plural(missing, 'call')} without a line")
        if n_left_out:
            told.append(f"{plural(n_left_out, 'line')} left out: told twice, or of no call")
        return f"{job.id}: {job.status}{self.server.why_failed(job)}; {wording.listed(told)}"

    def _lines(self, job: Job, header: JsonObject) -> Iterator[tuple[str, Answer | None]]:
        """Each `custom_id` that came back, "" where nobody can read it, and its answer; None of a call that was not made."""
        if job.n_answered and not job.output_file_id:
            told = f"{plural(job.n_answered, 'call')} answered, but no output file is named"
            raise ModelError(f"{job.id}: {told}; ask again later")
        with tempfile.TemporaryDirectory(prefix="evalkit-batch-") as folder:
            path = Path(folder) / "lines.jsonl"
            for file_id in filter(None, (job.output_file_id, job.error_file_id)):
                self.server.save(file_id, path)
                with path.open("rb") as file:
                    for line in filter(bytes.strip, file):
                        yield _line(line, header["parameters"].get("strip_think"))


class _Reply(msgspec.Struct):
    status_code: int | None = None
    body: Any = None


class _Line(msgspec.Struct):
    custom_id: str
    response: _Reply | None = None
    error: Any = None


def _line(raw: bytes, strip_think: bool | None) -> tuple[str, Answer | None]:
    """A line as the reply of a single call is read."""
    try:
        line = msgspec.json.decode(raw.removeprefix(b"\xef\xbb\xbf"), type=_Line)
    except (ValueError, RecursionError):
        return "", None
    if reply.mapping(line.error).get("code") in _NOT_ASKED:
        return line.custom_id, None
    came = line.response or _Reply()
    try:
        body = {"error": line.error} if line.error else came.body
        return line.custom_id, reply.answer(body, strip_think=strip_think)
    except reply.NoAnswerError as why:
        status = "" if why.status or came.status_code in {200, None} else f"{came.status_code}: "
        told = wording.told_by(f"{status}{why}")
        if why.names & endpoint.FILTERED:
            reason = "content_filter"
            return line.custom_id, Answer(
                text="", outcome="refused", finish_reason=reason, error=told
            )
        return line.custom_id, Answer(text="", outcome="error", error=told)


T = TypeVar("T")
MARK = "evalkit_input"  # in a batch's metadata: SHA-256 of its input
_MOST_LISTED = 5_000  # batches: one that was lost is among the newest
_NO_BATCHES = (
    "this server has no batches; --write-only FILE writes the input, to be sent by other means"
)
_REMEDIES = {**endpoint.STOPS, 403: "this key may not use files and batches"}
_REMEDIES |= {404: _NO_BATCHES, 405: _NO_BATCHES}


class AwayError(ModelError):
    """The server does not answer now; asked later it may."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as the server tells of it.

    Attributes:
        state: validating, in_progress, finalizing, cancelling; completed, failed, expired or cancelled when it is over.
        metadata: Under `MARK` what its input was; not there when this kit did not send it.
        errors: Why the server would not begin it.
    """

    id: Annotated[str, msgspec.Meta(min_length=1)]
    state: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="status")
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    metadata: dict[str, Any] | None = None
    request_counts: dict[str, Any] | None = None
    errors: Any = None

    @property
    def status(self) -> str:
        """How far it is, in words."""
        return self.state.lower().replace("_", " ")

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it; some servers spell it so."""
        return self.status in {"completed", "failed", "expired", "cancelled", "canceled"}

    @property
    def n_answered(self) -> int:
        """Calls answered so far."""
        return reply.whole_number((self.request_counts or {}).get("completed")) or 0


class BatchApi:
    """Files and batches behind an OpenAI-compatible address; no key in any message."""

    def __init__(self, asked: Evaluation) -> None:
        """Prepares the client by a run's address, time-out and attempts; nothing is sent yet.

        Raises:
            ModelError: Neither key nor address is known.
        """
        key, address = endpoint.key_and_address(None, asked.base_url)
        self._secrets = wording.known_secrets(key, address)
        how = {"timeout": asked.timeout_s, "max_retries": asked.attempts - 1}
        self._client = openai.OpenAI(api_key=key, base_url=address, **how)
        self.host = self._client.base_url.host

    def upload(self, path: Path) -> str:
        """Sends an input file; returns its id."""
        made = self._asked(lambda: self._client.files.create(file=path, purpose="batch"))
        file_id = getattr(made, "id", None)
        if not isinstance(file_id, str) or not file_id:
            raise ModelError(f"{self.host}: took a file and told no id; {_NO_BATCHES}")
        return file_id

    def create(self, file_id: str, input_sha256: str) -> Job:
        """Begins a batch; asked once only, since who repeats it pays twice."""
        begin = self._client.with_options(max_retries=0).batches.create
        return self._job(
            lambda: begin(
                input_file_id=file_id,
                endpoint=CALLS_TO,
                completion_window="24h",
                metadata={MARK: input_sha256},
            )
        )

    def jobs(self) -> list[Job]:
        """The batches of the account, as the server lists them: the newest first."""
        listing = self._client.batches.list
        found = self._asked(lambda: [*islice(listing(limit=100), _MOST_LISTED)])
        return [self._read(one) for one in found]

    def job(self, batch_id: str) -> Job:
        """A batch as it stands."""
        return self._job(lambda: self._client.batches.retrieve(batch_id), batch_id)

    def cancel(self, batch_id: str) -> Job:
        """Ends a batch; what was answered stays."""
        return self._job(lambda: self._client.batches.cancel(batch_id), batch_id)

    def save(self, file_id: str, path: Path) -> None:
        """Writes a file of the server's to `path`, piece by piece."""

        def saved() -> None:
            with self._client.files.with_streaming_response.content(file_id) as came:
                came.stream_to_file(path)

        self._asked(saved, missing=f"has no file {file_id} any more")

    def why_failed(self, job: Job) -> str:
        """Why the server would not begin a batch, in its words and brackets; "" when it did."""
        told = job.errors.get("data") if isinstance(job.errors, dict) else job.errors
        said = [
            f"line {one['line']}: {one.get('message')}" if one.get("line") else one.get("message")
            for one in map(reply.mapping, told if isinstance(told, list) else ())
        ]
        return f" ({wording.told_by('; '.join(map(str, said)), self._secrets)})" if said else ""

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _job(self, call: Callable[[], object], batch_id: str = "") -> Job:
        return self._read(self._asked(call, missing=batch_id and f"knows no batch {batch_id}"))

    def _read(self, found: object) -> Job:
        plain = found.to_dict(warnings=False) if isinstance(found, openai.BaseModel) else found
        try:
            return msgspec.convert(wording.without_secrets_in(plain, self._secrets), Job)
        except msgspec.ValidationError as why:
            raise ModelError(f"{self.host}: no batch came, perhaps a web page ({why})") from None

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
        except (openai.OpenAIError, ValueError, AttributeError):  # the last is the SDK's of a page
            failed = ModelError(f"{self.host}: the reply is not JSON, perhaps a web page")
        raise failed

    def _refused(self, why: openai.APIStatusError, missing: str) -> ModelError:
        status = why.status_code
        told = self._clean(f"{self.host}: {status}: {reply.message_of(why.body, why.message)}")
        if status == 404 and missing:
            return ModelError(f"{self.host} {missing} ({told})")
        if status in {408, 425, 429} or status >= 500:
            is_broke = why.code == "insufficient_quota"
            return ModelError(f"{told}; top it up") if is_broke else AwayError(told)
        return ModelError("; ".join(filter(None, (told, _REMEDIES.get(status)))))

    def _clean(self, text: str) -> str:
        return wording.told_by(text, self._secrets)
