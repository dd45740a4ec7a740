"""A reply has a size: it is read while it comes in, unpacked piece by piece, and no further than the limit."""

from __future__ import annotations

import httpx2


class TooLargeError(Exception):
    """A reply went beyond the limit; the message says how large it is, as far as is known."""


async def read_within(response: httpx2.Response, *, max_bytes: int) -> None:
    """Reads a reply before the client does; of an error's page only the beginning is kept.

    Raises:
        TooLargeError: An answer of more than `max_bytes`, unpacked; its connection is closed.
    """
    parts, n_bytes = [], 0
    async for part in response.aiter_bytes():
        n_bytes += len(part)
        if n_bytes > max_bytes:
            if response.is_success:
                raise TooLargeError(_said(response, max_bytes))
            break
        parts.append(part)
    response._content = b"".join(parts)  # what `aread` would set, so that it need not read


def _said(response: httpx2.Response, max_bytes: int) -> str:
    length = response.headers.get("content-length", "")
    packed = response.headers.get("content-encoding")
    known = (
        f", {int(length) / 1e6:,.1f} MB{' packed' if packed else ''}" if length.isdigit() else ""
    )
    return f"the reply is larger than {max_bytes / 1e6:g} MB (max_reply_mb){known}; it was not read to its end"
