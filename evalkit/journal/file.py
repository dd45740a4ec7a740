"""An append-only file of lines with one writer: locked, flushed line by line, mended when it opens."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path
from threading import Lock
from typing import Any

from evalkit.errors import DataError
from evalkit.wording import plural

Place = tuple[int, int]  # offset and length of a line


class AppendOnlyFile:
    """Whole lines only: a kill or a full disk leaves at most one torn line, and the next opening removes it."""

    def __init__(self, path: Path) -> None:
        """Opens the file for appending and takes its lock, which the system frees when the process ends.

        Raises:
            DataError: Another process writes it, or it cannot be written.
        """
        self._path, self._lock, self._synced = path, Lock(), True
        self._file = _locked(path)
        self.size = _repaired(self._file, path)

    def append(self, line: bytes) -> Place:
        """Writes one line, in one go.

        Raises:
            DataError: It cannot be written; the lines before it stay whole.
        """
        line += b"\n"
        with self._lock:
            start = self.size
            try:
                self._write_all(line)
            except OSError as why:
                self._cut_to(start)
                raise DataError(
                    f"{self._path}: cannot write ({why.strerror}); free some space and start again: what was written is kept"
                ) from why
            self.size, self._synced = start + len(line), False
        return start, len(line)

    def read(self, place: Place) -> bytes:
        """A line that was written before."""
        offset, length = place
        return os.pread(self._file.fileno(), length, offset)

    def sync(self) -> None:
        """Waits until what was written is on the disk, without holding up who appends meanwhile."""
        with self._lock:
            if self._synced or self._file.closed:
                return
            self._synced, copy = True, os.dup(self._file.fileno())
        try:
            os.fsync(copy)
        except OSError as why:
            if why.errno not in {
                errno.EINVAL,
                errno.EOPNOTSUPP,
            }:  # a device or file system that cannot sync
                self._synced = False
                raise DataError(
                    f"{self._path}: cannot be brought to the disk ({why.strerror}); check the disk"
                ) from why
        finally:
            os.close(copy)

    def close(self) -> None:
        """Syncs and closes; the lock goes with it."""
        try:
            self.sync()
        finally:
            self._file.close()

    def _write_all(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._file.fileno(), line) :]

    def _cut_to(self, size: int) -> None:
        try:
            self._file.truncate(size)
        except (
            OSError
        ):  # a device, or a disk so sick that the torn line stays: the next opening removes it
            return


def _locked(path: Path) -> Any:
    import fcntl  # not on Windows, where only WSL is supported

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    except OSError as why:
        raise DataError(
            f"{path}: cannot write here ({why.strerror}); choose a folder you may write to"
        ) from why
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as why:
        file.close()
        raise DataError(
            f"{path}: another run is writing this journal; wait for it to end, or name another journal"
        ) from why
    except OSError as why:
        file.close()
        raise DataError(
            f"{path}: cannot be locked ({why.strerror}); write journals on a local disk"
        ) from why
    return file


def _repaired(file: Any, path: Path) -> int:
    """Cuts an unfinished last line off and returns the length of what is whole."""
    size = file.seek(0, os.SEEK_END)
    whole = _last_newline(file, size) + 1
    if whole < size:
        warnings.warn(
            f"{path}: the last line was unfinished ({plural(size - whole, 'byte')}); removed, that call is asked again",
            stacklevel=5,
        )
        file.truncate(whole)
    return whole


def _last_newline(file: Any, size: int) -> int:
    end = size
    while end > 0:
        start = max(0, end - 65536)
        if (at := os.pread(file.fileno(), end - start, start).rfind(b"\n")) >= 0:
            return start + at
        end = start
    return -1
