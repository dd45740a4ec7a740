"""Files that last: lines appended by many hands, whole files put there at once, a folder held while one changes it.

A line counts when its line end is there. What stands after the last line end was torn by a kill or a full disk and was never
confirmed to anybody: readers leave it out, the next append removes it, and both say so.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from mmap import ACCESS_READ, mmap
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn, Self, TypeVar

from evalkit.errors import DataError
from evalkit.wording import visible

JsonObject = dict[str, Any]  # what a file or a server holds, before it is checked
Record = TypeVar("Record")
Place = tuple[int, int]  # offset and length of a line
Told = Callable[[str], None]
LARGEST = 2**53  # whole numbers beyond it are not the same number in every program that reads them
_CANNOT_SYNC = {errno.EINVAL, errno.EOPNOTSUPP}  # a device or file system without sync


def warned(what: str) -> None:
    """Tells of a torn line as a warning."""
    warnings.warn(visible(what), stacklevel=4)


def kept_quiet(_what: str) -> None:
    """For who tells people of a torn line in another way."""


@contextmanager
def _tried(path: str | Path, what: str, remedy: str) -> Iterator[None]:
    """What the system refuses within, as an error that says where, why and what to do."""
    try:
        yield
    except OSError as why:
        raise DataError(f"{path}: {what} ({why.strerror}); {remedy}") from why


class LineFile:
    """An append-only file of whole lines, locked while it is open and mended when it opens.

    A kill or a full disk leaves at most one torn line, and the next opening removes it.

    Attributes:
        path: Where it is.
        size: Bytes in the file.
        n_removed: Bytes of a torn line that opening removed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        wait: bool = True,
        remedy: str = "removed",
        told: Told = warned,
    ) -> None:
        """Opens the file for appending and takes its lock, which the system frees when the process ends.

        Args:
            path: The file; it and its folder are made when they are not there.
            wait: Wait for another writer; False refuses at once.
            remedy: What became of a torn line, for the warning.
            told: Receives that warning.

        Raises:
            DataError: Another process writes it and is not waited for, or it cannot be written.
        """
        self.path, self._lock, self._synced = Path(path), Lock(), True
        with _tried(self.path, "cannot write here", "choose a folder you may write to"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b", buffering=0)
        try:
            with _tried(self.path, "cannot be locked", "write it on a local disk"):
                _lock(self._file.fileno(), wait=wait)
            self.n_removed = self._mended()
            if self.n_removed:
                told(f"{path}: the last line was unfinished ({self.n_removed} bytes); {remedy}")
        except BaseException as why:
            self._file.close()
            if isinstance(why.__cause__, BlockingIOError):
                other = "another run is writing this journal; wait for it to end, or name another"
                raise DataError(f"{path}: {other}") from why
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def append(self, line: bytes, *, sync: bool = False) -> Place:
        """Writes one line, in one go; with `sync` it is on the disk on return.

        Raises:
            DataError: It cannot be written; the lines before it stay whole, and nothing of it stays.
        """
        line += b"\n"
        remedy = "free some space and start again: what was written is kept"
        with self._lock, _tried(self.path, "cannot write", remedy):
            start = self.size
            try:
                left = line
                while left:
                    left = left[os.write(self._file.fileno(), left) :]
                if sync:
                    _synced(self._file.fileno())
            except OSError:
                with suppress(OSError):  # so sick a disk keeps the torn line: the next opening
                    self._file.truncate(start)
                raise
            self.size, self._synced = start + len(line), sync
        return start, len(line)

    def clear(self) -> None:
        """Takes every line out again; the lock stays."""
        with self._lock:
            self._file.truncate(0)
            self.size, self._synced = 0, False

    def read(self, place: Place) -> bytes:
        """A line that was written before, or several that stand together."""
        offset, length = place
        return os.pread(self._file.fileno(), length, offset)

    def sync(self) -> None:
        """Waits until what was written is on the disk, without holding up who appends meanwhile."""
        with self._lock:
            if self._synced or self._file.closed:
                return
            self._synced, copy = True, os.dup(self._file.fileno())
        try:
            with _tried(self.path, "cannot be brought to the disk", "check the disk"):
                _synced(copy)
        except DataError:
            self._synced = False
            raise
        finally:
            os.close(copy)

    def close(self) -> None:
        """Syncs and closes; the lock goes with it."""
        try:
            self.sync()
        finally:
            self._file.close()

    def _mended(self) -> int:
        """Cuts an unfinished last line off; returns its length."""
        size, self.size = self._file.seek(0, os.SEEK_END), 0
        if size:
            with mmap(self._file.fileno(), 0, access=ACCESS_READ) as content:
                self.size = content.rfind(b"\n") + 1
        if self.size < size:
            unfinished = "its last line is unfinished and cannot be removed"
            with _tried(self.path, unfinished, "check the disk"):
                self._file.truncate(self.size)
        return size - self.size


def append_line(path: str | Path, line: bytes) -> None:
    """Appends one line and brings it to the disk; waits for others who write.

    Raises:
        DataError: It cannot be written; what was there stays whole.
    """
    with LineFile(path) as file:
        file.append(line, sync=True)


def lines(path: str | Path, *, told: Told = warned) -> Iterator[tuple[int, int, bytes]]:
    """The whole lines of a file with number (from 1) and offset; none when there is no file.

    A torn last line is left out, and told.

    Raises:
        DataError: It cannot be read.
    """
    if not Path(path).exists():
        return
    with _tried(path, "cannot be read", "check its permissions"), open(path, "rb") as file:
        offset = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                told(f"{path}:{number}: the last line is unfinished and was left out")
                return
            yield number, offset, line
            offset += len(line)


def write_whole(path: str | Path, content: bytes, *, mode: int = 0o666) -> Path:
    """Puts a file there, or another in its place, so that nobody ever sees half of it.

    Raises:
        DataError: It cannot be written; what was there before stays.
    """
    path = Path(path)
    with _partial(path, content, mode) as partial:
        os.replace(partial, path)
    return path


def write_new(path: str | Path, content: bytes, *, mode: int = 0o666) -> bool:
    """Puts a whole file there unless one is there already, even one of the same moment; True when it was put.

    Raises:
        DataError: It cannot be written.
    """
    path = Path(path)
    with _partial(path, content, mode) as partial:
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
    return True


@contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Holds a folder, so that what is read, changed and written in it is one step for all who hold it so.

    Raises:
        DataError: There is no such folder.
    """
    with _tried(folder, "cannot be held", "need a folder"):
        held = os.open(folder, os.O_RDONLY)
    try:
        _lock(held)
        yield
    finally:
        os.close(held)


def _lock(descriptor: int, *, wait: bool = True) -> None:
    import fcntl  # not on Windows, where only WSL is supported

    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


@contextmanager
def _partial(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """The whole content on the disk beside its place; a name of its own, as others may write there too."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    remedy = "free some space, or make its folder writable"
    try:
        with _tried(path, "cannot write", remedy):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
                file.flush()
                _synced(file.fileno())
            yield partial
    finally:
        with suppress(OSError):  # gone after a replace
            partial.unlink(missing_ok=True)


def _synced(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as why:
        if why.errno not in _CANNOT_SYNC:
            raise


def read_text(path: Path, *, said: str, remedy: str) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Args:
        path: The file.
        said: What the message says when it cannot be had, such as "not a manifest".
        remedy: What to do then.

    Raises:
        DataError: It is missing, cannot be read, is empty, or is no UTF-8.
    """
    try:
        found = path.read_text(encoding="utf-8-sig")
    except OSError as why:
        raise DataError(f"{path}: {said} ({why.strerror}); {remedy}") from why
    except ValueError as why:  # a NUL in the path too
        raise DataError(f"{path}: {said} (not UTF-8: {why}); {remedy}") from why
    if not found.strip():
        raise DataError(f"{path}: {said} (it is empty); {remedy}")
    return found


def read_json(path: Path, *, said: str, remedy: str) -> Any:
    """The value in a JSON file; the arguments are those of `read_text`.

    Raises:
        DataError: As `read_text`; or it is not JSON, or holds NaN or an infinite number.
    """
    text = read_text(path, said=said, remedy=remedy)
    try:
        return from_json(text)
    except ValueError as why:
        what = "" if isinstance(why, DoubledNameError) else "not JSON: "
        raise DataError(f"{path}: {said} ({what}{why}); {remedy}") from why


def read_record(path: Path, kind: type[Record], *, said: str, remedy: str) -> Record:
    """A JSON file as the record that was written there; `said` and `remedy` are those of `read_text`.

    Raises:
        DataError: As `read_json`; or a field is missing or of another type.
    """
    return as_record(read_json(path, said=said, remedy=remedy), kind, f"{path}: {said}", remedy)


def as_record(value: object, kind: type[Record], said: str, remedy: str) -> Record:
    """What was read from JSON as a record, every field of its type.

    Raises:
        DataError: A field is missing or of another type.
    """
    import msgspec

    try:
        return msgspec.convert(value, kind)
    except (ValueError, TypeError) as why:
        raise DataError(f"{said} ({why}); {remedy}") from why


def to_json(value: object, *, sort_keys: bool = False) -> bytes:
    """A file of JSON, a value a line; refuses NaN and infinite numbers, which are not JSON."""
    return json.dumps(value, indent=1, sort_keys=sort_keys, allow_nan=False).encode() + b"\n"


def to_line(value: object, *, ascii_only: bool = True) -> bytes:
    """A line of JSON without its line end; refuses NaN and infinite numbers. Half characters stand escaped either way."""
    text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False)
    return text.encode(errors="backslashreplace")


def canonical(value: object) -> bytes:
    """JSON that is the same for the same value, to be hashed: sorted names, no spaces, ASCII; refuses NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def utc(at: datetime | float | None = None, unit: str = "seconds") -> str:
    """A time as files hold it, in UTC by ISO 8601.

    Args:
        at: An aware time, or seconds since 1970; the present unless given.
        unit: What it is told to: seconds, milliseconds, microseconds.
    """
    if at is not None and not isinstance(at, datetime):
        at = datetime.fromtimestamp(float(at), UTC)
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec=unit)


def from_json(text: str | bytes) -> Any:
    """The value that JSON stands for.

    Raises:
        DoubledNameError: A name stands twice in one object, and which of its values counts is a matter of who reads it.
        ValueError: It is none, is nested too deeply, or holds NaN or an infinite number, which are not JSON.
    """
    try:
        return json.loads(
            text, parse_constant=_refused, parse_float=finite, object_pairs_hook=once_each
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def finite(digits: str) -> float:
    """The number that JSON's digits stand for.

    Raises:
        ValueError: It is so large that Python reads it as infinite, such as 1e999.
    """
    found = float(digits)
    return _refused(digits) if math.isinf(found) else found


class DoubledNameError(ValueError):
    """A name stands twice in one object."""


def once_each(pairs: list[tuple[str, Any]]) -> JsonObject:
    """The object that these names and values make.

    Raises:
        DoubledNameError: A name stands twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise DoubledNameError(f"the name {json.dumps(twice)[:60]} stands twice in one object")
    return found


def read_yaml(path: Path, *, need: str) -> Any:
    """What stands in a YAML file; None when it holds comments only.

    A mapping may take over another one (`<<: *defaults`), and what it says itself goes before that.

    Args:
        path: The file.
        need: What must stand in it, for the message.

    Raises:
        DataError: It cannot be read, is empty, is no YAML, says a name twice in one mapping, or holds a number that is not
            finite or too large.
    """
    import yaml

    class Once(yaml.SafeLoader):
        """Refuses a name that stands twice in one mapping; 1 and "1" are one name, and so are true and yes."""

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node, seen = super().compose_mapping_node(anchor), dict[str, int]()
            for key, _ in node.value:
                is_known = isinstance(key, yaml.ScalarNode) and key.tag in self.yaml_constructors
                name = str(self.construct_object(key) if is_known else key.value)
                told = f"{path}:{key.start_mark.line + 1}: {key.value} stands twice"
                if first := seen.get(name):
                    raise DataError(f"{told}, first in line {first}; keep one of them")
                seen[name] = key.start_mark.line + 1
            return node

    text = read_text(path, said="cannot be read", remedy=f"need {need}")
    try:
        found = Once(text).get_single_data()
        odd = "; ".join(f"{name}: {why}" for name, why in _no_numbers(found, ""))
    except DataError:
        raise
    except (ValueError, RecursionError, yaml.YAMLError) as why:
        raise DataError(f"{path}: not YAML ({' '.join(str(why).split())}); need {need}") from why
    if odd:
        raise DataError(f"{path}: {odd}")
    return found


def no_number(value: object) -> str:
    """Why a value is no number to compute with; "" when it is one, or is no number at all.

    Example:
        >>> no_number(float("nan")), no_number(0.05), no_number("nan")
        ('got nan; need a finite number', '', '')
    """
    if isinstance(value, float) and not math.isfinite(value):
        return f"got {value}; need a finite number"
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"got a whole number of {value.bit_length()} bits; need one of at most {LARGEST}"
    return ""


def _no_numbers(value: object, name: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping | list):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value, start=1)
        for part, one in parts:
            yield from _no_numbers(one, f"{name}.{part}" if name else str(part))
    elif why := no_number(value):
        yield name, why
