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
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.answers import journal
from evalkit.answers.reply import NoAnswerError, answer
from evalkit.answers.request import CALLS_TO
from evalkit.answers.runner import Evaluation
from evalkit.errors import DataError, ModelError
from evalkit.files import alone, read_record, write_new, write_whole
from evalkit.ledger import sha256_of
from evalkit.records import Answer
from evalkit.redaction import without_secrets_in
from evalkit.wording import count, listed, plural, told_by

if TYPE_CHECKING:
    from evalkit.answers.batch_api import BatchApi, Job

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


KIND, VERSION = "evalkit-submission", 1
_FIRST_WAIT_S, _LONGEST_WAIT_S, _GROWTH = 5.0, 300.0, 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One input file and the batch made of it.

    Attributes:
        batch_id: "" until it is known that there is one.
        host: The server it was sent to.
    """

    sha256: str
    n: int
    file_id: str = ""
    batch_id: str = ""
    host: str = ""
    status: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What stands in the state's file.

    Attributes:
        header: Of the journal, as it was when the parts were written.
        parts: What was not collected yet.
        collected: Ids of batches whose answers are in a journal.
    """

    kind: str = KIND
    version: int = VERSION
    header: dict[str, Any]
    parts: tuple[Part, ...] = ()
    collected: tuple[str, ...] = ()

    @property
    def open(self) -> tuple[Part, ...]:
        """The parts that are with the server."""
        return tuple(one for one in self.parts if one.batch_id)


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
        from evalkit.answers.batch_api import BatchApi  # openai takes most of a second

        said = self.evaluation
        return BatchApi(base_url=said.base_url, timeout_s=said.timeout_s, attempts=said.attempts)

    @property
    def journal(self) -> Path:
        """The journal that gets the answers."""
        return Path(str(self.evaluation.journal))

    def write(self, path: Path) -> Iterator[Path]:
        """Writes the input files and nothing else, the second as `name-2.jsonl`; yields each.

        Raises:
            DataError: One of them is there already.
        """
        for number, one in enumerate(self._inputs(self._answered()), start=1):
            part = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
            if not write_new(part, one.content):
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
        with self._held():
            state = self._checked(self._state())
            if state.open and len(state.open) == len(state.parts):
                yield from self._polled(state)
            else:
                yield from self._sent(state)

    def cancel(self) -> Iterator[str]:
        """Ends what is under way; what was answered is collected by the steps that follow.

        Raises:
            ModelError: As `step`.
        """
        with self._held():
            state = self._found_again(self._state())
            for part in state.open:
                job = self.server.job(part.batch_id)
                job = job if job.is_over else self.server.cancel(part.batch_id)
                state = self._kept(state, replace(part, status=job.status))
                yield f"{part.batch_id}: {_words(job.status)}"
            if not state.open:
                yield "no batch is under way"

    def wait(self, *, pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
        """Steps to the end of what is under way, at growing intervals; says what changed.

        Raises:
            ModelError: As `step`; a server that is away for a while is waited for as long as `patience_s` says.
        """
        from evalkit.answers.batch_api import AwayError

        wait_s, away_s, said = _FIRST_WAIT_S, 0.0, list[str]()
        while self.is_under_way:
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

    @property
    def is_under_way(self) -> bool:
        """Whether there are batches of which not everything was collected."""
        return bool(self._state().open)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """One step at a time, whoever takes it; connections do not outlive it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(self.path.parent):
            try:
                yield
            finally:
                if server := vars(self).pop("server", None):
                    server.close()

    def _state(self) -> State:
        if not self.path.exists():
            return State(header=self.evaluation.header())
        said, remedy = (
            "not the state of a batch",
            "restore it from a copy, or remove it to begin anew",
        )
        found = read_record(self.path, State, said=said, remedy=remedy)
        if (found.kind, found.version) != (KIND, VERSION):
            raise DataError(
                f"{self.path}: {said} ({found.kind}, version {found.version}); {remedy}"
            )
        return found

    def _checked(self, state: State) -> State:
        """The state, when what is under way is what would be asked now."""
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
        return state

    def _write(self, state: State) -> State:
        text = json.dumps(without_secrets_in(asdict(state)), indent=1, allow_nan=False)
        write_whole(self.path, text.encode() + b"\n")
        return state

    def _kept(self, state: State, part: Part) -> State:
        """The state with one part as it is now, on the disk."""
        parts = tuple(part if one.sha256 == part.sha256 else one for one in state.parts)
        return self._write(replace(state, parts=parts))

    def _answered(self) -> set[str]:
        """Keys that the journal answers; it is refused now if it could not take the answers later."""
        if not self.journal.exists():
            return set()
        with journal.Writer(self.journal, self.evaluation.header()) as writer:
            return {call.key for call in self.evaluation.calls() if call.key in writer}

    def _inputs(self, known: set[str]) -> Iterator[Input]:
        limits = {"most_requests": self.most_requests, "most_bytes": self.most_bytes}
        return inputs(self.evaluation, known, **limits)

    def _asked(self, part: Part, header: Mapping[str, object]) -> dict[str, Asked]:
        path = self._file(part.sha256)
        if sha256_of(path) not in {"", part.sha256}:
            raise DataError(
                f"{path}: is not the file that was sent as {part.batch_id}; restore it from a copy"
            )
        return asked(path, header)

    def _found_again(self, state: State) -> State:
        """Takes up batches of the same input that the state does not know: a kill, or whoever removed it, left them behind."""
        lost = {one.sha256: one for one in state.parts if not one.batch_id}
        known = {*state.collected, *(one.batch_id for one in state.open)}
        by_file = {one.file_id: one for one in lost.values() if one.file_id}
        for job in self.server.jobs() if lost else ():
            part = lost.get(job.input_sha256) or by_file.get(job.input_file_id)
            if part and part.sha256 in lost and job.batch_id not in known:
                state = self._kept(state, self._with(part, job))
                del lost[part.sha256]
        return state

    def _without_lost(self, state: State) -> State:
        """What was written but never came to be a batch is written anew, by the settings of now."""
        state = self._found_again(state)
        for part in set(state.parts) - set(state.open):
            self._file(part.sha256).unlink(missing_ok=True)
        return replace(state, parts=state.open)

    def _sent(self, state: State) -> Iterator[str]:
        state = self._without_lost(state)
        under_way = {
            one.key for part in state.open for one in self._asked(part, state.header).values()
        }
        fresh = [self._laid_down(one) for one in self._inputs(self._answered() | under_way)]
        header = state.header if state.open else self.evaluation.header()
        state = self._write(replace(state, header=header, parts=(*state.open, *fresh)))
        state = self._found_again(state)
        for part in state.open:
            yield f"{part.batch_id}: was sent before, {_words(part.status)}"
        for part in (one for one in state.parts if not one.batch_id):
            state, sent = self._created(state, part)
            yield f"{sent.batch_id}: {plural(sent.n, 'call')} sent to {sent.host}, {_words(sent.status)}"
        if not state.parts:
            yield f"{self.journal} lacks no answer; there is nothing to send"

    def _created(self, state: State, part: Part) -> tuple[State, Part]:
        file_id = self.server.upload(self._file(part.sha256))
        state = self._kept(state, part := replace(part, file_id=file_id))
        part = self._with(part, self.server.create(file_id, part.sha256))
        return self._kept(state, part), part

    def _with(self, part: Part, job: Job) -> Part:
        return replace(part, batch_id=job.batch_id, status=job.status, host=self.server.host)

    def _laid_down(self, one: Input) -> Part:
        write_whole(self._file(one.sha256), one.content)
        return Part(sha256=one.sha256, n=one.n)

    def _file(self, sha256: str) -> Path:
        return self.path.parent / f"{self.path.stem}-{Path(sha256).name[:12]}.jsonl"

    def _polled(self, state: State) -> Iterator[str]:
        for part in state.open:
            job = self.server.job(part.batch_id)
            if not job.is_over:
                state = self._kept(state, replace(part, status=job.status))
                yield f"{job.batch_id}: {_words(job.status)}, {count(job.n_answered)} of {count(part.n)} calls answered"
                continue
            yield from self._collected(part, job, state.header)
            rest = tuple(one for one in state.parts if one.sha256 != part.sha256)
            state = self._write(
                replace(state, parts=rest, collected=(*state.collected, part.batch_id))
            )
            self._file(part.sha256).unlink(missing_ok=True)
        if not state.open:
            yield self._standing()

    def _collected(self, part: Part, job: Job, header: Mapping[str, object]) -> Iterator[str]:
        """Brings a batch's answers into the journal; all of its files are read before the first is written."""
        wanted, lines = self._asked(part, header), list(self._lines(job, header))
        if lines and not any(line.custom_id in wanted for line in lines):
            raise ModelError(
                f"{job.batch_id}: none of {plural(len(lines), 'line')} that came is about a call that was sent; nothing was "
                f"taken, ask again later, or remove {self.path} to forget it"
            )
        first, told = dict[str, Answer](), Counter[str]()
        for line in lines:
            if line.custom_id not in wanted:
                told["unreadable" if not line.custom_id else "unknown"] += 1
            elif line.answer is not None:
                before = first.get(line.custom_id)
                told["twice"] += before is not None
                if before is None or (before.outcome == "error" != line.answer.outcome):
                    first[line.custom_id] = line.answer
        with journal.Writer(self.journal, header) as writer:
            for custom_id, found in first.items():
                place = wanted[custom_id]
                if place.key not in writer:
                    writer.append(place.key, place.example_id, place.sample, found)
        yield f"{job.batch_id}: {_words(job.status)}{f' ({job.errors})' if job.errors else ''}; {_found(part.n, first, told)}"

    def _lines(self, job: Job, header: Mapping[str, Any]) -> Iterator[Line]:
        files = {"output file": job.output_file_id, "error file": job.error_file_id}
        if job.n_answered and not job.output_file_id:
            raise ModelError(
                f"{job.batch_id}: {plural(job.n_answered, 'call')} answered, but no output file is named; ask again later"
            )
        strip_think = header["parameters"].get("strip_think")
        with tempfile.TemporaryDirectory(prefix="evalkit-batch-") as folder:
            for name, file_id in files.items():
                if file_id:
                    self.server.save(file_id, path := Path(folder) / "lines.jsonl")
                    yield from answers(
                        path, f"{job.batch_id}: its {name} {file_id}", strip_think=strip_think
                    )

    def _standing(self) -> str:
        answered, n = self._answered(), self.evaluation.n_calls
        if lacks := sum(call.key not in answered for call in self.evaluation.calls()):
            return f"{plural(lacks, 'call')} of {count(n)} without an answer; the same command sends them again"
        return f"{self.journal} answers all {plural(n, 'call')}"


def _found(n: int, first: Mapping[str, Answer], told: Mapping[str, int]) -> str:
    errors = [one.error or "" for one in first.values() if one.outcome == "error"]
    parts = [f"{plural(len(first) - len(errors), 'answer')} of {count(n)}"]
    if errors:
        why, times = Counter(errors).most_common(1)[0]
        parts.append(f"{plural(len(errors), 'error')} ({count(times)} times: {why})")
    if missing := n - len(first):
        parts.append(f"{plural(missing, 'call')} without a line")
    more = {
        "twice": ("line", "came twice, the first answer counts"),
        "unknown": ("line", "belong to no call that was sent"),
        "unreadable": ("line", "cannot be read"),
    }
    parts += [
        f"{plural(told[name], noun)} {words}" for name, (noun, words) in more.items() if told[name]
    ]
    return listed(parts)


def _words(status: str) -> str:
    return status.replace("_", " ")
