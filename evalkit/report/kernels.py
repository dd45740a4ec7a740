"""Kernels forked from one process that has imported everything once, so that seven notebooks don't import it seven times.

The process is started as a module: it reads one JSON line a kernel and answers with the kernel's process id.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partialmethod
from importlib import import_module
from typing import Any, TextIO, cast

# What most notebooks need. None of these starts a thread or opens a socket when imported, which a fork would break.
PRELOADED = (
    "ipykernel.kernelapp",
    "ipykernel.debugger",
    "matplotlib_inline.backend_inline",
    "seaborn",
    "statsmodels.formula.api",
    "yaml",
    "fontTools.subset",
    "evalkit.show.figure",
    "evalkit.workbench",
    # what its methods import when they are called
    "evalkit.abtest.experiment",
    "evalkit.abtest.log",
    "evalkit.benchmark.doctor",
    "evalkit.benchmark.noise",
    "evalkit.human.preference",
)
_BACKEND = "module://matplotlib_inline.backend_inline"
# What these do when a notebook imports them they could not do in a process without a shell.
_IMPORTED_TOO_EARLY = (
    "--InteractiveShellApp.matplotlib=inline",
    "--InteractiveShellApp.extra_extensions=evalkit.show",
)


@dataclass(frozen=True)
class Forked:
    """A forked kernel in the shape of `subprocess.Popen`, as far as jupyter_client asks."""

    pid: int
    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        """None while it lives; its warm process reaps it, so the exit code is not known."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 0
        return None

    def wait(self) -> int:
        """Asked only of one that is gone."""
        return 0

    def send_signal(self, signum: int) -> None:
        """Signals it."""
        os.kill(self.pid, signum)

    terminate = partialmethod(send_signal, signal.SIGTERM)
    kill = partialmethod(send_signal, signal.SIGKILL)


_Process = Forked | subprocess.Popen[bytes]


class Warm:
    """The preloaded process, seen from the chain. Its kernels end with it, and it ends with us."""

    def __init__(self, *, cold: bool = False) -> None:
        """Starts importing at once, in a session of its own, as Ctrl-C is for the chain; `cold` preloads nothing."""
        self.stopped = False
        self.cold_ones: list[_Process] = []
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        if not cold:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

    def close(self) -> None:
        """Kills every kernel; none is started after that."""
        self.stopped = True
        for kernel in self.cold_ones:
            if kernel.poll() is None:
                _kill_group(kernel.pid)
        if not (warm := self._process):
            return
        with suppress(BrokenPipeError):
            cast(TextIO, warm.stdin).close()
        try:
            warm.wait(timeout=1)
        except subprocess.TimeoutExpired:  # still importing, so it has no kernels
            warm.kill()
            warm.wait()
        with self._lock:  # whoever waits for an answer has been told by now
            cast(TextIO, warm.stdout).close()

    def kernel(self, command: Sequence[str], env: Mapping[str, str], folder: str | None) -> Forked:
        """Forks one kernel.

        Raises:
            OSError: The warm process is gone; a cold kernel will do.
        """
        with self._lock:
            if not self._process or self.stopped:
                raise OSError("there is no warm process")
            told = {"command": list(command), "env": dict(env), "folder": folder}
            print(json.dumps(told), file=self._process.stdin, flush=True)
            answer = cast(TextIO, self._process.stdout).readline()
        if not answer:
            raise OSError("the warm process has stopped")
        return Forked(int(answer))

    def manager_class(self) -> type:
        """A kernel manager for nbclient whose kernels come from here, or cold when that fails."""
        from jupyter_client.manager import AsyncKernelManager

        warm = self

        class ForkedKernelManager(AsyncKernelManager):
            async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
                here: Any = self.provisioner
                try:
                    env, folder = kw.get("env") or os.environ, kw.get("cwd")
                    here.process = warm.kernel(kernel_cmd, env, folder)
                except OSError:
                    if warm.stopped:
                        raise
                    await super()._async_launch_kernel(kernel_cmd, **kw)
                    warm.cold_ones.append(here.process)
                    if warm.stopped:  # it came too late
                        _kill_group(here.process.pid)
                    return
                here.pid = here.pgid = here.process.pid
                self._reconcile_connection_info(here.connection_info)

        return ForkedKernelManager


def _kill_group(pid: int) -> None:
    """Kills a kernel that leads a group, with what it has started."""
    for kill in (os.killpg, os.kill):  # it may not lead its group yet
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def main() -> None:
    """Imports everything, then forks a kernel for each line that comes in; at the end kills those that are left."""
    os.environ |= {"MPLBACKEND": _BACKEND, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a kernel prints early must not look like an answer
    for name in PRELOADED:
        import_module(name)
    ours, theirs = os.pipe()  # nobody writes; reading ends when we do
    kernels: set[int] = set()

    def reap(*_: object) -> None:
        """Takes leave of kernels that are gone, so that their time counts as ours."""
        with suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                kernels.discard(pid)

    signal.signal(signal.SIGCHLD, reap)
    for line in sys.stdin:  # ends when the chain does, however that ends
        pid = os.fork()
        if pid == 0:
            answers.close()
            os.close(theirs)
            _become_kernel(ours, **json.loads(line))
        kernels.add(pid)
        with suppress(BrokenPipeError):
            print(pid, file=answers, flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for pid in kernels:
        _kill_group(pid)
    for pid in kernels:
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    os._exit(0)


def _end_with(pipe: int) -> None:
    os.read(pipe, 1)
    os._exit(1)


def _become_kernel(warm: int, command: list[str], env: dict[str, str], folder: str | None) -> None:
    from ipykernel import kernelapp

    os.setsid()
    threading.Thread(target=_end_with, args=(warm,), daemon=True).start()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(env | {"JPY_PARENT_PID": str(os.getppid()), "MPLBACKEND": _BACKEND})
    if folder:
        os.chdir(folder)
    sys.argv = ["ipykernel_launcher", *command[command.index("-f") :], *_IMPORTED_TOO_EARLY]
    try:
        kernelapp.launch_new_instance(argv=sys.argv[1:])
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
