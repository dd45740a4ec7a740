"""One notebook, executed by papermill with parameters that were checked first."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from evalkit.study import Value, declared_parameters, read_notebook
from evalkit.wording import redacted, visible, without_secrets, without_secrets_in

_START_TIMEOUT_S = 300  # a busy machine takes its time


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one notebook, as the manifest keeps it.

    Attributes:
        title: The notebook's title, else its first heading or file name.
        error: None, or the exception in one line.
        seconds: Wall-clock time.
        skipped: It was up to date, and taken from the run before.
    """

    title: str = ""
    error: str | None = None
    seconds: float = 0.0
    skipped: bool = False


def execute(
    notebook: Path,
    output: Path,
    values: Mapping[str, Value],
    *,
    folder: Path,
    kernels: type | None = None,
    say: Callable[[str], None] | None = None,
) -> Executed:
    """Executes a notebook; whatever happens, `output` is then a notebook that says so.

    Args:
        notebook: The source, which is only read.
        output: Where the executed notebook goes; written beside it first and renamed.
        values: Checked parameters; the notebook gets those it declares.
        folder: The kernel's working directory.
        kernels: A kernel manager class, cold kernels by default.
        say: Receives each line that the notebook prints while it runs, such as how far asking is and what it waits for.
    """
    from jupyter_client.manager import AsyncKernelManager
    from papermill import execute_notebook
    from papermill.exceptions import PapermillExecutionError

    began = time.monotonic()
    partial = output.with_suffix(".partial.ipynb")
    declared = declared_parameters(notebook)
    error = None
    try:
        with _own_loop():
            execute_notebook(
                str(notebook),
                str(partial),
                {name: value for name, value in values.items() if name in declared},
                kernel_name="python3",
                progress_bar=False,
                start_timeout=_START_TIMEOUT_S,
                request_save_on_cell_execute=False,
                autosave_cell_every=0,
                resources={"metadata": {"path": str(folder)}},
                extra_arguments=["--log-level=CRITICAL"],
                stdout_file=_Printed(say) if say else None,
                kernel_manager_class=kernels or AsyncKernelManager,
            )
    except PapermillExecutionError as why:
        error = one_line(f"{why.ename}: {why.evalue}")
    except Exception as why:  # a dead kernel, a full disk: the report must still come
        error = one_line(f"{type(why).__name__}: {why}")
        _write_failed(notebook, partial, error)
    _without_keys(partial)
    os.replace(partial, output)
    seconds = round(time.monotonic() - began, 1)
    return Executed(title=title_of(output), error=error, seconds=seconds)


class _Printed(io.TextIOBase):
    """A file as papermill writes what a notebook prints to; each line is passed on once it is whole."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._rest = say, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            self._say(one_line(without_secrets(line)))
        return len(text)


def title_of(notebook: Path) -> str:
    """The notebook's metadata title, else its first heading, else its file name."""
    book = read_notebook(notebook)
    lines = "\n".join("".join(cell.source) for cell in book.cells).split("\n")
    headings = (line[2:].strip() for line in lines if line.startswith("# "))
    return visible(str(book.metadata.get("title") or next(headings, notebook.stem)))


def _without_keys(path: Path) -> None:
    """Outputs may echo a key, as some servers do in their errors; none stays in a file."""
    book = json.loads(path.read_text(encoding="utf-8"))
    if (safe := without_secrets_in(book)) != book:
        path.write_text(json.dumps(safe, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def one_line(text: str) -> str:
    """An error as one redacted line of at most 300 characters."""
    return visible(redacted(" ".join(text.split())))[:300]


@contextmanager
def _own_loop() -> Iterator[None]:
    """The client opens an event loop for its thread and leaves it open; this one is closed."""
    import asyncio  # takes the gate, which never gets here, some time

    from jupyter_core.utils import ensure_event_loop

    loop = ensure_event_loop()
    try:
        yield
    finally:
        if not loop.is_running():
            loop.close()
            asyncio.set_event_loop(None)


def _write_failed(notebook: Path, output: Path, error: str) -> None:
    import nbformat

    book = nbformat.read(str(notebook), as_version=4)
    cell = nbformat.v4.new_code_cell("")
    name, _, text = error.partition(": ")
    cell.outputs = [nbformat.v4.new_output("error", ename=name, evalue=text, traceback=[])]
    book.cells.insert(0, cell)
    book.metadata["papermill"] = {"exception": True}
    nbformat.write(book, str(output))
