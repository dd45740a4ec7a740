"""A server's files and batches: many calls sent as one file, answered within a day, mostly at half the price."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx2
import openai
from openai import OpenAI

from evalkit.answers.endpoint import key_and_address, message_of
from evalkit.answers.evaluation import CALLS_TO
from evalkit.answers.reply import mapping, whole_number
from evalkit.errors import ModelError
from evalkit.redaction import known_secrets, without_secrets
from evalkit.wording import told_by

T = TypeVar("T")
MARK = "evalkit_input"  # in a batch's metadata: SHA-256 of its input
_OVER = {"completed", "failed", "expired", "cancelled", "canceled"}  # some servers spell it so
_PAGES = 50  # of a hundred batches each: one that was lost is among the newest
_MOST_BYTES = 4 * 2**30
_NO_BATCHES = (
    "this server has no batches; --write-only FILE writes the input, to be sent by other means"
)
_REMEDIES = {
    401: "the key is not accepted, check OPENAI_API_KEY",
    402: "the account must be paid for",
    403: "this key may not use files and batches",
    404: _NO_BATCHES,
    405: _NO_BATCHES,
}


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

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        attempts: int = 6,
    ) -> None:
        """Prepares the client; nothing is sent yet.

        Args:
            base_url: Address up to and with `/v1`; OPENAI_BASE_URL unless given.
            api_key: Better left to the environment.
            timeout_s: Seconds in which something must arrive.
            attempts: Attempts at whatever may be repeated.

        Raises:
            ModelError: Neither key nor address is known.
        """
        key, address = key_and_address(api_key, base_url)
        self._secrets = known_secrets(key, address)
        self._client = OpenAI(
            api_key=key, base_url=address, timeout=timeout_s, max_retries=attempts - 1
        )
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
            found = self._asked(partial(self._page, query))
            page = mapping(found)
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
        told = self._clean(f"{self.host}: {status}: {message_of(why)}")
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
