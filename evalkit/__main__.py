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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from evalkit import __version__
from evalkit.errors import DesignError, EvalkitError
from evalkit.wording import redacted, visible

if TYPE_CHECKING:
    from evalkit.settings import Settings

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

where things are:
  data/<study>/       what must not be lost: study.yaml, test set, journals, votes, plan
  reports/<study>/    one folder a run; report.html is the file to send

exit codes:
  0 done, or "ship"    1 an error, in one line    2 a wrong command
  10 don't ship       11 not enough evidence     12 broken run: the report says what failed"""


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
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # as stderr is: no text ends a run that is done
    try:
        return options.command(options)
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
    from evalkit.benchmark.bench import Bench
    from evalkit.benchmark.imported import import_answers
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
        options.study, test=options.test, base=options.base, fine_tuned=options.fine_tuned
    )
    _tell(_as_called(next_step(made)))
    return 0


def _tell(text: object, *, file: TextIO | None = None) -> None:
    """All that is printed: without keys, and nothing in it drives the terminal."""
    print(visible(redacted(str(text))), file=file, flush=True)


class _Parser(argparse.ArgumentParser):
    """Its complaints quote what was typed, or what a script put there."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(visible(message), file)


def _as_called(text: str) -> str:
    """The commands in a text as they must be typed: a shell that doesn't find `evalkit` needs the path it was called by."""
    if Path(sys.argv[0]).name != "evalkit" or shutil.which("evalkit"):
        return text
    commands = (
        r"(?<![\w/.])evalkit (?=(?:new|doctor|run|rate|gate|compare|import|export|verify|confirm) )"
    )
    return re.sub(commands, lambda _: f"{shlex.quote(sys.argv[0])} ", text)


def _parameter(text: str) -> tuple[str, Any]:
    """`name=value`, the value read as YAML so that 3, 0.5 and true are what they look like."""
    import yaml

    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r}: need name=value")
    try:
        read = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        read = value
    return name, read if isinstance(read, int | float | bool) else value


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="evalkit", description=_ABOUT, epilog=_MORE, formatter_class=layout)
    parser.add_argument("--version", action="version", version=f"evalkit {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="chosen", metavar="COMMAND", required=True
    )

    # in the order of a study's life
    new = commands.add_parser("new", help="start a study from a test file and two model names")
    new.add_argument("study", help="its name: lower-case letters, digits, - and _")
    new.add_argument(
        "--test", type=Path, required=True, metavar="FILE", help="held-out examples, chat JSONL"
    )
    new.add_argument("--base", required=True, metavar="MODEL")
    new.add_argument("--fine-tuned", required=True, metavar="MODEL")
    new.set_defaults(command=_new)

    doctor = commands.add_parser(
        "doctor", help="look for duplicates, leaks, conflicts and thin slices in a test set"
    )
    doctor.add_argument("test", type=Path, help="chat JSONL")
    doctor.add_argument(
        "--train", type=Path, default=None, help="the training file, to look for leaks"
    )
    doctor.add_argument(
        "--slices", default="", help="metadata fields, comma separated; as study.yaml beside says"
    )
    doctor.add_argument(
        "--cluster", default="", help="metadata field that rows of one source share"
    )
    doctor.set_defaults(command=_doctor)

    run = commands.add_parser("run", help="execute a study's notebooks and write one report")
    run.add_argument("study", help="a folder below data/")
    run.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NOTEBOOK",
        help="numbers or names, such as 01 or 01_benchmark",
    )
    run.add_argument(
        "--skip-up-to-date",
        action="store_true",
        help="take over chapters whose inputs have not changed",
    )
    run.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        type=_parameter,
        metavar="NAME=VALUE",
        help="replace a parameter of the study file; may be repeated",
    )
    run.add_argument(
        "--workers",
        type=int,
        default=2,
        choices=range(1, 9),
        metavar="N",
        help="notebooks side by side (2)",
    )
    run.add_argument(
        "--fresh", action="store_true", help="ask everything again, into journals of this run's own"
    )
    run.add_argument(
        "--cold", action="store_true", help="start each kernel by itself; slower, nothing shared"
    )
    run.set_defaults(command=_run)

    rate = commands.add_parser(
        "rate", help="serve a rating round on this machine, one link a rater; --lock closes it"
    )
    rate.add_argument("study")
    rate.add_argument("--round", default="", help="the round; the study file's by default")
    rate.add_argument("--port", type=int, default=8866)
    rate.add_argument(
        "--lock", action="store_true", help="close the round for good, so that its key opens"
    )
    rate.add_argument(
        "--unfinished",
        action="store_true",
        help="with --lock: even though raters have not finished",
    )
    rate.set_defaults(command=_rate)

    gate = commands.add_parser(
        "gate",
        help="answer for a pipeline: exit 0 ship, 10 don't, 11 not enough evidence, 12 broken",
    )
    gate.add_argument(
        "run",
        metavar="RUN_OR_STUDY",
        help="a run's folder or name, or a study, whose newest complete run is meant",
    )
    gate.set_defaults(command=_gate)

    _of_other_tools(commands)

    export = commands.add_parser(
        "export", help="write the A/B log as Parquet and the votes for other tools"
    )
    export.add_argument("study")
    export.add_argument("--to", required=True, metavar="FOLDER")
    export.set_defaults(command=_export)

    verify = commands.add_parser(
        "verify", help="is the record whole? recomputes every hash; exit 0 intact, 12 not"
    )
    verify.add_argument("study")
    verify.add_argument(
        "--against",
        default="",
        metavar="HEAD_OR_REPORT",
        help="a ledger head that you kept, or a report.html that names one",
    )
    verify.set_defaults(command=_verify)

    confirm = commands.add_parser(
        "confirm",
        help="say why what was changed after a result is all right; every report prints it",
    )
    confirm.add_argument("study")
    confirm.add_argument("reason", help="in words")
    confirm.add_argument(
        "--sealed-elsewhere",
        action="store_true",
        help="only take up plans and locks that no line of the ledger knows; fine when there are none",
    )
    confirm.set_defaults(command=_confirm)
    return parser


def _of_other_tools(commands: Any) -> None:
    compare = commands.add_parser(
        "compare", help="compare two files of other tools (or journals, tables): one page, no study"
    )
    compare.add_argument("base", type=Path, metavar="BASE_FILE")
    compare.add_argument("fine_tuned", type=Path, metavar="FINE_TUNED_FILE")
    compare.add_argument(
        "--metric", default="", help="the score that decides, where there are several"
    )
    compare.add_argument(
        "--test",
        dest="test_file",
        default="",
        metavar="FILE",
        help="the questions, chat JSONL, for files that hold answers only",
    )
    compare.add_argument(
        "--arms",
        nargs=2,
        default=("", ""),
        metavar="ARM",
        help="of promptfoo's arms base and fine-tuned",
    )
    compare.add_argument(
        "--margin",
        type=float,
        default=0.0,
        help="also asks whether it is worse by no more than this fraction",
    )
    _which(compare)
    compare.set_defaults(command=_compare)

    import_ = commands.add_parser(
        "import", help="put the answers of another tool's file into a study's journal"
    )
    import_.add_argument("file", type=Path)
    import_.add_argument(
        "--as",
        dest="role",
        required=True,
        choices=("base", "fine_tuned"),
        help="whose answers they are",
    )
    import_.add_argument("--study", required=True)
    import_.add_argument("--arm", default="", help="of promptfoo's arms the one that is meant")
    _which(import_)
    import_.set_defaults(command=_import)


def _which(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--filter",
        dest="filter_name",
        default="",
        help="of lm-eval's filters the one that is meant",
    )
    command.add_argument(
        "--columns", default="", metavar="WHAT=NAME,...", help="of a table, which column holds what"
    )


if __name__ == "__main__":
    sys.exit(main())
