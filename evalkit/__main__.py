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
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
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
    from argparse import _ActionsContainer as Container

    from _typeshed import SupportsWrite

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

_MOST_LINES = 40
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

Run = Callable[[Namespace], int | None]
Takes = Callable[["Container"], object]


def command(told: str, *takes: Takes) -> Callable[[Run], Run]:
    """Makes a function, which gives the exit code, the command of its name; they stand in the order of the help."""

    def known(run: Run) -> Run:
        made = _COMMANDS.add_parser(run.__name__.strip("_"), help=told)
        made.set_defaults(command=run)
        for add in takes:
            add(made)
        return run

    return known


def either(*takes: Takes) -> Takes:
    """One of them at most."""

    def add(to: Container) -> None:
        group = to.add_mutually_exclusive_group()
        for one in takes:
            one(group)

    return add


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
    options = _PARSER.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr is: no text ends a run that is done
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return options.command(options) or 0
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
_FIELDS = columns(help="which field is input, expected, id; an empty name: there is none")
_COLUMNS = columns(help="of a table, which column holds what")
_FILTER = option(
    "--filter", metavar="FILTER_NAME", help="of lm-eval's filters the one that is meant"
)


@command(
    "start a study from a test file and two model names",
    argument("study", help="its name: lower-case letters, digits, - and _"),
    file(
        "--test",
        required=True,
        help="held-out examples: chat JSONL, or what `evalkit convert` reads",
    ),
    option("--base", metavar="MODEL", required=True),
    option("--fine-tuned", metavar="MODEL", required=True),
    _FIELDS,
)
def _new(options: Namespace) -> None:
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


@command(
    "make a test set of a JSON array, a table, another tool's rows or log",
    argument("file", type=Path),
    file("--to", required=True, help="chat JSONL"),
    _FIELDS,
)
def _convert(options: Namespace) -> None:
    from evalkit.report.new import convert_file

    _tell(convert_file(options.file, options.to, columns=options.columns))


@command(
    "look for duplicates, leaks, conflicts and thin slices in a test set",
    argument("test", type=Path, help="chat JSONL"),
    argument("--train", type=Path, help="the training file, to look for leaks"),
    option("--slices", help="metadata fields, comma separated; as study.yaml beside says"),
    option("--cluster", help="metadata field that rows of one source share"),
)
def _doctor(options: Namespace) -> int:
    from evalkit.benchmark.doctor import examine
    from evalkit.show import doctor

    declared, train = _declared(options.test)
    found = examine(
        options.test,
        options.train or train,
        slice_fields=named(options.slices or declared.slice_fields),
        cluster_field=options.cluster or declared.cluster_field or None,
    )
    lines = "\n".join(doctor.lines(found)).split("\n")
    _tell("\n".join(lines[:_MOST_LINES]))
    if len(lines) > _MOST_LINES:
        _tell(f"  ... and {len(lines) - _MOST_LINES} more")
    return 0 if found.healthy else 1


def _declared(test: Path) -> tuple[Settings, Path | None]:
    """What the study beside a test file declares of it, and the training file; defaults where it is no study's."""
    folder = test.resolve().parent
    if (folder / FILE).is_file():
        study = Study(name=folder.name, root=folder.parent.parent)
        if study.path(study.settings.test_file).resolve() == test.resolve():
            return study.settings, study.named_file(study.settings.train_file)
    return Settings(), None


@command(
    "execute a study's notebooks and write one report",
    argument("study", help="a folder below data/"),
    argument(
        "--only", nargs="+", metavar="NOTEBOOK", help="numbers or names, such as 01 or 01_benchmark"
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
def _run(options: Namespace) -> int:
    from evalkit.report.chain import run_study

    twice = [name for name, n in Counter(name for name, _ in options.parameter).items() if n > 1]
    if twice:
        _PARSER.error(f"argument -p: {twice[0]} is given more than once; say which value counts")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is a Ctrl-C
    run = run_study(
        options.study,
        only=options.only or (),
        skip_up_to_date=options.skip_up_to_date,
        parameters=dict(options.parameter),
        workers=options.workers,
        fresh=options.fresh,
        cold=options.cold,
        say=_tell,
    )
    for name, error in run.failed.items():
        _warn(f"{name} failed: {error}")
    _tell(run.report)
    return 12 if run.failed else 0


@command(
    "serve a rating round on this machine, one link a rater; --lock closes it",
    argument("study"),
    option("--round", help="the round; the study file's by default"),
    argument("--port", type=int, default=8866),
    flag("--lock", help="close the round for good, so that its key opens"),
    flag("--unfinished", help="with --lock: even though raters have not finished"),
)
def _rate(options: Namespace) -> int:
    from evalkit.human import rater

    study, round_ = options.study, options.round
    if not options.lock and options.unfinished:
        raise DesignError("--unfinished goes with --lock")
    if not options.lock:
        return rater.serve(study, options.port, rating_round=round_)
    _tell(_as_called(rater.close(study, rating_round=round_, unfinished=options.unfinished)))
    return 0


def _benchmark(options: Namespace) -> Benchmark:
    from evalkit.benchmark.benchmark import Benchmark

    return Benchmark(study=Study.open(options.study))


@command(
    "ask for what a model's journal lacks as a batch, mostly at half the price; each call goes one step",
    argument("study"),
    role(help="whose answers are asked for"),
    either(
        flag("--wait", help="look again, ever less often, until all is collected"),
        file(
            "--write-only",
            help="write the input file and send nothing; evalkit import reads what comes of it",
        ),
    ),
    flag("--cancel", help="end what is under way; what was answered is kept"),
)
def _batch(options: Namespace) -> None:
    submission = _benchmark(options).submission(options.role)
    if options.write_only:
        nothing = f"{submission.journal} lacks no answer; nothing was written"
        for told in [*submission.write(options.write_only)] or [nothing]:
            _tell(told)
        return
    for told in submission.cancel() if options.cancel else submission.step():
        _tell(told)
    for told in submission.wait() if options.wait else ():
        _tell(told)


@command(
    "archive a model's answers while it still answers, asking for what is lacking",
    argument("study"),
    role(help="whose answers are kept"),
    file("--prompts", help="further prompts, as from production: chat JSONL"),
    number("--samples", default=0, help="ask each N times; as the study says"),
)
def _freeze(options: Namespace) -> None:
    from evalkit.benchmark.archive import freeze

    benchmark = _benchmark(options)
    _tell(freeze(benchmark, options.role, prompts=options.prompts, samples=options.samples))


@command(
    "answer for a pipeline: exit 0 ship, 10 don't, 11 not enough evidence, 12 broken",
    argument(
        "run",
        metavar="RUN_OR_STUDY",
        help="a run's folder or name, or a study, whose newest complete run is meant",
    ),
)
def _gate(options: Namespace) -> int:
    from evalkit.report.gate import gate

    found = gate(options.run)
    if found.judged:
        _warn(found.judged)
    if found.head:
        _warn(f"ledger head {found.head}")
    if found.warning:
        _warn(f"warning: {found.warning}")
    _tell(found.sentence)
    return found.code


@command(
    "say why what was changed after a result is all right; every report prints it",
    argument("study"),
    argument("reason", help="in words"),
    flag(
        "--sealed-elsewhere",
        help="only take up plans and locks that no line of the ledger knows; fine when there are none",
    ),
)
def _confirm(options: Namespace) -> None:
    from evalkit.report.gate import confirm

    study, only = Study.open(options.study), options.sealed_elsewhere
    for one in confirm(study, options.reason, only_files=only):
        _tell(f"confirmed: {one}")


@command(
    "is the record whole? recomputes every hash; exit 0 intact, 12 not",
    argument("study"),
    option(
        "--against",
        metavar="HEAD_OR_REPORT",
        help="a ledger head that you kept, or a report.html that names one",
    ),
)
def _verify(options: Namespace) -> int:
    from evalkit.report.gate import verify

    found = verify(options.study, against=options.against)
    _tell(found)
    return found.code


@command(
    "compare two files of other tools (or journals, tables): one page, no study",
    argument("base", metavar="BASE_FILE", type=Path),
    argument("fine_tuned", metavar="FINE_TUNED_FILE", type=Path),
    option("--metric", help="the score that decides, where there are several"),
    option(
        "--test", metavar="FILE", help="the questions, chat JSONL, for files that hold answers only"
    ),
    argument(
        "--arms",
        nargs=2,
        default=("", ""),
        metavar="ARM",
        help="of promptfoo's arms base and fine-tuned",
    ),
    argument(
        "--margin", type=float, help="also asks whether it is worse by no more than this fraction"
    ),
    _FILTER,
    _COLUMNS,
)
def _compare(options: Namespace) -> None:
    from evalkit.report.chain import compare

    said = {"filter_name": options.filter, "columns": options.columns, "test_file": options.test}
    page, sentence = compare(
        options.base,
        options.fine_tuned,
        metric=options.metric,
        margin=options.margin or 0.0,
        arms=options.arms,
        meant=said,
    )
    _tell(sentence)
    _tell(page)


@command(
    "put the answers of another tool's file into a study's journal",
    argument("file", type=Path),
    role(help="whose answers they are"),
    option("--study", required=True),
    option("--arm", help="of promptfoo's arms the one that is meant"),
    _FILTER,
    _COLUMNS,
)
def _import(options: Namespace) -> None:
    from evalkit.benchmark.archive import import_answers
    from evalkit.interop.logs import read_log

    benchmark = _benchmark(options)
    log = read_log(
        options.file,
        arm=options.arm,
        filter_name=options.filter,
        columns=options.columns,
        test_file=benchmark.path,
    )
    _tell(import_answers(benchmark, log, options.role))


@command(
    "write answers and A/B log as Parquet, and the votes, for other tools",
    argument("study"),
    option("--to", type=Path, metavar="FOLDER", required=True),
)
def _export(options: Namespace) -> None:
    from evalkit.report.export import export

    for path in export(options.study, options.to):
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
