"""The command line: thin, one function a command."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from evalkit.arguments import parser
from evalkit.errors import DesignError, EvalkitError
from evalkit.wording import redacted, visible

if TYPE_CHECKING:
    from evalkit.settings import Settings

_MOST_LINES = 40
_REMEDIES = {
    errno.EACCES: "change its permissions, or run as the user it belongs to",
    errno.EROFS: "the file system is read-only; copy the project to a place that can be written",
    errno.ENOSPC: "the disk is full; make room and run the same command again",
    errno.ENOTDIR: "a folder is needed where a file stands; move the file away",
    errno.EEXIST: "a folder is needed where a file stands; move the file away",
}
_ANY_REMEDY = "see that it is there and can be read and written"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; usage errors exit with 2."""
    try:
        try:
            return _main(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # who read us has seen enough: `evalkit doctor ... | head`
        for stream in (sys.stdout, sys.stderr):  # else Python complains when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 128 + signal.SIGPIPE


def _main(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # as stderr is: no text ends a run that is done
    try:
        return _COMMANDS[options.chosen](options)
    except EvalkitError as why:
        _tell(f"evalkit: {_as_called(str(why))}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as why:
        if why.filename is None and why.errno not in _REMEDIES:
            raise
        where = f"{why.filename}: " if why.filename else ""
        _tell(
            f"evalkit: {where}{why.strerror}; {_REMEDIES.get(why.errno or 0, _ANY_REMEDY)}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        _tell("evalkit: stopped; what was finished is kept", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    from evalkit.report.chain import run_study

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is a Ctrl-C
    run = run_study(
        options.study,
        only=options.only,
        skip_up_to_date=options.skip_up_to_date,
        parameters=dict(options.parameter),
        workers=options.workers,
        fresh=options.fresh,
        cold=options.cold,
        say=_tell,
    )
    for name, error in run.failed.items():
        _tell(f"evalkit: {name} failed: {error}", file=sys.stderr)
    _tell(run.report)
    return 12 if run.failed else 0


def _gate(options: argparse.Namespace) -> int:
    from evalkit.report.gate import gate

    found = gate(options.run)
    if found.judged:
        _tell(f"evalkit: {found.judged}", file=sys.stderr)
    if found.head:
        _tell(f"evalkit: ledger head {found.head}", file=sys.stderr)
    if found.warning:
        _tell(f"evalkit: warning: {found.warning}", file=sys.stderr)
    _tell(found.sentence)
    return found.code


def _compare(options: argparse.Namespace) -> int:
    from evalkit.report.compare import compare

    names = ("metric", "test_file", "filter_name", "columns", "margin")
    arms = {"base_arm": options.arms[0], "fine_tuned_arm": options.arms[1]}
    given = {name: getattr(options, name) for name in names}
    page, sentence = compare(options.base, options.fine_tuned, given | arms)
    _tell(sentence)
    _tell(page)
    return 0


def _import(options: argparse.Namespace) -> int:
    from evalkit.benchmark.bench import Bench, import_answers
    from evalkit.interop import read_log
    from evalkit.study import Study

    bench = Bench(study=Study.open(options.study))
    log = read_log(
        options.file,
        arm=options.arm,
        filter_name=options.filter_name,
        columns=options.columns,
        test_file=bench.path,
    )
    _tell(import_answers(bench, log, options.role))
    return 0


def _batch(options: argparse.Namespace) -> int:
    from evalkit.benchmark.bench import Bench
    from evalkit.study import Study

    submission = Bench(study=Study.open(options.study)).submission(options.role)
    if options.write_only:
        nothing = f"{submission.journal} lacks no answer; nothing was written"
        for told in [*submission.write(options.write_only)] or [nothing]:
            _tell(told)
        return 0
    for told in submission.cancel() if options.cancel else submission.step():
        _tell(told)
    for told in submission.wait() if options.wait else ():
        _tell(told)
    return 0


def _freeze(options: argparse.Namespace) -> int:
    from evalkit.benchmark.bench import Bench
    from evalkit.benchmark.frozen import freeze
    from evalkit.study import Study

    bench = Bench(study=Study.open(options.study))
    _tell(freeze(bench, options.role, prompts=options.prompts, samples=options.samples))
    return 0


def _rate(options: argparse.Namespace) -> int:
    from evalkit.human import serve

    if options.lock:
        _tell(
            _as_called(
                serve.close(
                    options.study, rating_round=options.round, unfinished=options.unfinished
                )
            )
        )
        return 0
    if options.unfinished:
        raise DesignError("--unfinished goes with --lock")
    return serve.main(options.study, options.port, rating_round=options.round)


def _confirm(options: argparse.Namespace) -> int:
    from evalkit.decision.concerns import confirm
    from evalkit.study import Study

    study, only = Study.open(options.study), options.sealed_elsewhere
    for one in confirm(study, options.reason, only_files=only):
        _tell(f"confirmed: {one}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from evalkit.report.verify import verify

    found = verify(options.study, against=options.against)
    _tell(found)
    return found.code


def _doctor(options: argparse.Namespace) -> int:
    from evalkit.benchmark.doctor import examine
    from evalkit.settings import named

    declared, train = _declared(options.test)
    found = examine(
        options.test,
        options.train or train,
        slice_fields=named(options.slices or declared.slice_fields),
        cluster_field=options.cluster or declared.cluster_field or None,
    )
    lines = str(found).split("\n")
    _tell("\n".join(lines[:_MOST_LINES]))
    if len(lines) > _MOST_LINES:
        _tell(f"  ... and {len(lines) - _MOST_LINES} more")
    return 0 if found.healthy else 1


def _declared(test: Path) -> tuple[Settings, Path | None]:
    """What the study beside a test file declares of it, and the training file; defaults where it is no study's."""
    from evalkit.settings import Settings
    from evalkit.study import FILE, Study

    folder = test.resolve().parent
    if (folder / FILE).is_file():
        study = Study(name=folder.name, root=folder.parent.parent)
        if study.path(study.settings.test_file).resolve() == test.resolve():
            return study.settings, study.named_file(study.settings.train_file)
    return Settings(), None


def _export(options: argparse.Namespace) -> int:
    from evalkit.report.export import export

    for path in export(options.study, Path(options.to)):
        _tell(path)
    return 0


def _new(options: argparse.Namespace) -> int:
    from evalkit.report.new import new_study, next_step

    made = new_study(
        options.study,
        test=options.test,
        base=options.base,
        fine_tuned=options.fine_tuned,
        columns=options.columns,
        say=_tell,
    )
    _tell(_as_called(next_step(made)))
    return 0


def _convert(options: argparse.Namespace) -> int:
    from evalkit.report.new import convert_file

    _tell(convert_file(options.file, options.to, columns=options.columns))
    return 0


def _tell(text: object, *, file: TextIO | None = None) -> None:
    """All that is printed: without keys, and nothing in it drives the terminal."""
    print(visible(redacted(str(text))), file=file, flush=True)


def _as_called(text: str) -> str:
    """The commands in a text as they must be typed: a shell that doesn't find `evalkit` needs the path it was called by."""
    if Path(sys.argv[0]).name != "evalkit" or shutil.which("evalkit"):
        return text
    commands = rf"(?<![\w/.])evalkit (?=(?:{'|'.join(_COMMANDS)}) )"
    return re.sub(commands, lambda _: f"{shlex.quote(sys.argv[0])} ", text)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "new": _new,
    "convert": _convert,
    "doctor": _doctor,
    "run": _run,
    "rate": _rate,
    "batch": _batch,
    "freeze": _freeze,
    "gate": _gate,
    "confirm": _confirm,
    "verify": _verify,
    "compare": _compare,
    "import": _import,
    "export": _export,
}


if __name__ == "__main__":
    sys.exit(main())
