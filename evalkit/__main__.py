"""The command line: its commands in the order of a study's life, what each takes, and one function a command."""

from __future__ import annotations

import errno
import io
import os
import re
import shlex
import shutil
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from evalkit import __version__
from evalkit.errors import DesignError, EvalkitError
from evalkit.study import FILE, Settings, Study, Value, named
from evalkit.wording import redacted, visible

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from evalkit.answers.evaluation import Role
    from evalkit.benchmark.benchmark import Benchmark

_ABOUT = """Is my fine-tuned model really better?

Three layers of evidence, one decision: a benchmark on held-out examples, blind
human rating, and an A/B test in production. Each layer is a notebook; a run
executes them all and writes one HTML file that opens anywhere."""

_MORE = """a first study:
  evalkit new mystudy --test held_out.jsonl --base gpt-4o-mini --fine-tuned ft:gpt-4o-mini:acme
  export OPENAI_API_KEY=...               keys come from the environment, never from a file
  evalkit doctor data/mystudy/test.jsonl  is the test set fit to test with?
  evalkit run mystudy --only 01 02 07     the benchmark alone
  evalkit run mystudy --only 03           draws the pairs to rate, once raters are named
  evalkit rate mystudy                    one link a rater, blind
  evalkit rate mystudy --lock             when all have finished: closes the round
  evalkit run mystudy                     everything, every night if you like
  evalkit gate mystudy && ./deploy        deploys only on "ship"

answers you have already, from other tools or from files:
  evalkit compare BASE FINE_TUNED         one page, no study and no model call

where things are:
  data/<study>/       what must not be lost: study.yaml, test set, journals, votes, plan
  reports/<study>/    one folder a run; report.html is the file to send

exit codes:
  0 done, or "ship"    1 an error, in one line    2 a wrong command
  10 don't ship       11 not enough evidence     12 broken run: the report says what failed"""

_IN_THE_WAY = "a folder is needed where a file stands; move the file away"
_REMEDIES = {
    errno.EACCES: "change its permissions, or run as the user it belongs to",
    errno.EROFS: "the file system is read-only; copy the project to a place that can be written",
    errno.ENOSPC: "the disk is full; make room and run the same command again",
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
}
_ANY_REMEDY = "see that it is there and can be read and written"


class _Parser(ArgumentParser):
    """The command line or one command; its complaints quote what was typed, or what a script put there."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        super()._print_message(visible(message), file)


_PARSER = _Parser(
    "evalkit", description=_ABOUT, epilog=_MORE, formatter_class=RawDescriptionHelpFormatter
)
_PARSER.add_argument("--version", action="version", version=f"evalkit {__version__}")
_COMMANDS = _PARSER.add_subparsers(title="commands", metavar="COMMAND", required=True)

Run = Callable[..., int | None]


def command(*takes: Callable[[ArgumentParser], object]) -> Callable[[Run], Run]:
    """Makes a function the command of its name, its docstring the help; it gives the exit code."""

    def known(run: Run) -> Run:
        made = _COMMANDS.add_parser(run.__name__.strip("_"), help=run.__doc__)
        made.set_defaults(command=run)
        for add in takes:
            add(made)
        return run

    return known


def _parameter(text: str) -> tuple[str, Value]:
    """`name=value`, the value read as YAML so that 3, 0.5 and true are what they look like."""
    import yaml

    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise ArgumentTypeError(f"{text!r}: need name=value")
    try:
        read = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        read = value
    return name, read if isinstance(read, int | float | bool) else value


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
    given = vars(_PARSER.parse_args(arguments))
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr is: no text ends a run that is done
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return given.pop("command")(**given) or 0
    except EvalkitError as why:
        _warn(_as_called(str(why)))
        return 1
    except BrokenPipeError:
        raise
    except OSError as why:
        if why.filename is None and why.errno not in _REMEDIES:
            raise
        where = f"{why.filename}: " if why.filename else ""
        _warn(f"{where}{why.strerror}; {_REMEDIES.get(why.errno or 0, _ANY_REMEDY)}")
        return 1
    except KeyboardInterrupt:
        _warn("stopped; what was finished is kept")
        return 130


argument = partial(methodcaller, "add_argument")  # all that argparse knows of one
option, flag = partial(argument, default=""), partial(argument, action="store_true")
file = partial(argument, type=Path, metavar="FILE")
number = partial(argument, type=int, metavar="N")
role = partial(argument, "--as", dest="role", required=True, choices=("base", "fine_tuned"))
columns = partial(option, "--columns", metavar="WHAT=NAME,...")
_STUDY = argument("study", help="a folder below data/")
_FIELDS = columns(help="which field is input, expected, id; an empty name: there is none")
_COLUMNS = columns(help="of a table, which column holds what")
_FILTER = option("--filter", dest="filter_name", help="of lm-eval's filters the one that is meant")


@command(
    argument("study", help="its name: lower-case letters, digits, - and _"),
    file("--test", required=True, help="chat JSONL, or what `evalkit convert` reads"),
    option("--base", metavar="MODEL", required=True),
    option("--fine-tuned", metavar="MODEL", required=True),
    _FIELDS,
)
def _new(study: str, test: Path, base: str, fine_tuned: str, columns: str) -> None:
    """Start a study from a test file and two model names"""
    from evalkit.report.new import new_study, next_step

    made = new_study(study, test=test, base=base, fine_tuned=fine_tuned, columns=columns, say=_tell)
    _tell(_as_called(next_step(made)))


@command(argument("file", type=Path), file("--to", required=True, help="chat JSONL"), _FIELDS)
def _convert(file: Path, to: Path, columns: str) -> None:
    """Make a test set of a JSON array, a table, another tool's rows or log"""
    from evalkit.report.new import convert_file

    _tell(convert_file(file, to, columns=columns))


@command(
    argument("test", type=Path, help="chat JSONL"),
    argument("--train", type=Path, help="the training file, to look for leaks"),
    option("--slices", help="metadata fields, comma separated; as study.yaml beside says"),
    option("--cluster", help="metadata field that rows of one source share"),
)
def _doctor(test: Path, train: Path | None, slices: str, cluster: str) -> int:
    """Look for duplicates, leaks, conflicts and thin slices in a test set"""
    from evalkit.benchmark.doctor import examine
    from evalkit.show import doctor

    folder, declared = test.resolve().parent, Settings()
    if (folder / FILE).is_file():
        study = Study(name=folder.name, root=folder.parent.parent)
        if study.path(study.settings.test_file).resolve() == test.resolve():
            declared, train = study.settings, train or study.named_file(study.settings.train_file)
    fields, source = named(slices or declared.slice_fields), cluster or declared.cluster_field
    found = examine(test, train, slice_fields=fields, cluster_field=source or None)
    _tell("\n".join(doctor.lines(found)))
    return 0 if found.healthy else 1


@command(
    _STUDY,
    argument(
        "--only", nargs="+", default=(), metavar="NOTEBOOK", help="such as 01 or 01_benchmark"
    ),
    flag("--skip-up-to-date", help="take over chapters whose inputs have not changed"),
    argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        type=_parameter,
        metavar="NAME=VALUE",
        help="replace a parameter of the study file; may be repeated",
    ),
    number("--workers", default=2, choices=range(1, 9), help="notebooks side by side (2)"),
    flag("--fresh", help="ask everything again, into journals of this run's own"),
    flag("--cold", help="start each kernel by itself; slower, nothing shared"),
)
def _run(
    study: str,
    *,
    only: Sequence[str],
    skip_up_to_date: bool,
    parameter: list[tuple[str, Value]],
    workers: int,
    fresh: bool,
    cold: bool,
) -> int:
    """Execute a study's notebooks and write one report"""
    from evalkit.report.chain import run_study

    twice = [name for name, n in Counter(name for name, _ in parameter).items() if n > 1]
    if twice:
        _PARSER.error(f"argument -p: {twice[0]} is given more than once; say which value counts")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is a Ctrl-C
    run = run_study(
        study,
        only=only,
        skip_up_to_date=skip_up_to_date,
        parameters=dict(parameter),
        workers=workers,
        fresh=fresh,
        cold=cold,
        say=_tell,
    )
    for name, error in run.failed.items():
        _warn(f"{name} failed: {error}")
    _tell(run.report)
    return 12 if run.failed else 0


@command(
    _STUDY,
    option(
        "--round",
        dest="rating_round",
        metavar="ROUND",
        help="the round; the study file's by default",
    ),
    argument("--port", type=int, default=8866),
    flag("--lock", help="close the round for good, so that its key opens"),
    flag("--unfinished", help="with --lock: even though raters have not finished"),
)
def _rate(study: str, rating_round: str, port: int, lock: bool, unfinished: bool) -> int:
    """Serve a rating round on this machine, one link a rater; --lock closes it"""
    from evalkit.human import rater

    if not lock and unfinished:
        raise DesignError("--unfinished goes with --lock")
    if not lock:
        return rater.serve(study, port, rating_round=rating_round)
    _tell(_as_called(rater.close(study, rating_round=rating_round, unfinished=unfinished)))
    return 0


def _benchmark(study: str) -> Benchmark:
    from evalkit.benchmark.benchmark import Benchmark

    return Benchmark(study=Study.open(study))


@command(
    _STUDY,
    role(help="whose answers are asked for"),
    flag("--wait", help="look again, ever less often, until all is collected"),
    file("--write-only", help="write the input file, for evalkit import later; send nothing"),
    flag("--cancel", help="end what is under way; what was answered is kept"),
)
def _batch(study: str, role: Role, wait: bool, write_only: Path | None, cancel: bool) -> None:
    """Ask for what a model's journal lacks as a batch, mostly at half the price; each call goes one step"""
    if write_only and (wait or cancel):
        _PARSER.error(
            "argument --write-only: sends nothing, so there is nothing to wait for or end"
        )
    submission = _benchmark(study).submission(role)
    if write_only:
        nothing = f"{submission.journal} lacks no answer; nothing was written"
        for told in [*submission.write(write_only)] or [nothing]:
            _tell(told)
        return
    for told in submission.cancel() if cancel else submission.step():
        _tell(told)
    for told in submission.wait() if wait else ():
        _tell(told)


@command(
    _STUDY,
    role(help="whose answers are kept"),
    file("--prompts", help="further prompts, as from production: chat JSONL"),
    number("--samples", default=0, help="ask each N times; as the study says"),
)
def _freeze(study: str, role: Role, prompts: Path | None, samples: int) -> None:
    """Archive a model's answers while it still answers, asking for what is lacking"""
    from evalkit.benchmark.archive import freeze

    _tell(freeze(_benchmark(study), role, prompts=prompts, samples=samples))


@command(argument("run", metavar="RUN_OR_STUDY", help="a run; of a study the newest complete one"))
def _gate(run: str) -> int:
    """Answer for a pipeline: exit 0 ship, 10 don't, 11 not enough evidence, 12 broken"""
    from evalkit.report.gate import gate

    found = gate(run)
    if found.judged:
        _warn(found.judged)
    if found.head:
        _warn(f"ledger head {found.head}")
    if found.warning:
        _warn(f"warning: {found.warning}")
    _tell(found.sentence)
    return found.code


@command(
    _STUDY,
    argument("reason", help="in words"),
    flag(
        "--sealed-elsewhere", help="only take up plans and locks that no line of the ledger knows"
    ),
)
def _confirm(study: str, reason: str, sealed_elsewhere: bool) -> None:
    """Say why what was changed after a result is all right; every report prints it"""
    from evalkit.report.gate import confirm

    for one in confirm(Study.open(study), reason, only_files=sealed_elsewhere):
        _tell(f"confirmed: {one}")


@command(
    _STUDY,
    option("--against", metavar="HEAD_OR_REPORT", help="a ledger head, or a report that names one"),
)
def _verify(study: str, against: str) -> int:
    """Is the record whole? recomputes every hash; exit 0 intact, 12 not"""
    from evalkit.report.gate import verify

    found = verify(study, against=against)
    _tell(found)
    return found.code


@command(
    argument("base", metavar="BASE_FILE", type=Path),
    argument("fine_tuned", metavar="FINE_TUNED_FILE", type=Path),
    option("--metric", help="the score that decides, where there are several"),
    option("--test", metavar="FILE", help="the questions, for files that hold answers only"),
    argument(
        "--arms", nargs=2, default=("", ""), metavar="ARM", help="of promptfoo's: base, tuned"
    ),
    argument("--margin", type=float, default=0.0, help="a loss, as a fraction, that is accepted"),
    _FILTER,
    _COLUMNS,
)
def _compare(
    base: Path,
    fine_tuned: Path,
    *,
    metric: str,
    test: str,
    arms: Sequence[str],
    margin: float,
    filter_name: str,
    columns: str,
) -> None:
    """Compare two files of other tools (or journals, tables): one page, no study"""
    from evalkit.report.chain import compare

    meant = {"filter_name": filter_name, "columns": columns, "test_file": test}
    page, told = compare(base, fine_tuned, metric=metric, margin=margin, arms=arms, meant=meant)
    _tell(told)
    _tell(page)


@command(
    argument("file", type=Path),
    role(help="whose answers they are"),
    option("--study", required=True),
    option("--arm", help="of promptfoo's arms the one that is meant"),
    _FILTER,
    _COLUMNS,
)
def _import(
    file: Path, role: Role, *, study: str, arm: str, filter_name: str, columns: str
) -> None:
    """Put the answers of another tool's file into a study's journal"""
    from evalkit.benchmark.archive import import_answers
    from evalkit.interop.logs import read_log

    benchmark, said = _benchmark(study), {"filter_name": filter_name, "columns": columns}
    log = read_log(file, arm=arm, **said, test_file=benchmark.path)
    _tell(import_answers(benchmark, log, role))


@command(_STUDY, option("--to", type=Path, metavar="FOLDER", required=True))
def _export(study: str, to: Path) -> None:
    """Write answers and A/B log as Parquet, and the votes, for other tools"""
    from evalkit.report.export import export

    for path in export(study, to):
        _tell(path)


def _tell(text: object, *, file: TextIO | None = None) -> None:
    """All that is printed: without keys, and nothing in it drives the terminal."""
    print(visible(redacted(str(text))), file=file, flush=True)


def _warn(text: str) -> None:
    _tell(f"evalkit: {text}", file=sys.stderr)


def _as_called(text: str) -> str:
    """The commands in a text as they must be typed: a shell that doesn't find `evalkit` needs the path it was called by."""
    if Path(sys.argv[0]).name != "evalkit" or shutil.which("evalkit"):
        return text
    commands = rf"(?<![\w/.])evalkit (?=(?:{'|'.join(_COMMANDS.choices)}) )"
    return re.sub(commands, lambda _: f"{shlex.quote(sys.argv[0])} ", text)


if __name__ == "__main__":
    sys.exit(main())
