"""The command line: its commands in the order of a study's life, what each takes, and one function a command."""

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

from evalkit import __version__
from evalkit.errors import DesignError, EvalkitError
from evalkit.settings import Settings, Value, named
from evalkit.study import FILE, Study
from evalkit.wording import redacted, visible

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from evalkit.benchmark.bench import Bench

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


class _Parser(argparse.ArgumentParser):
    """One command; its complaints quote what was typed, or what a script put there."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        super()._print_message(visible(message), file)

    def argument(
        self, name: str, told: str | None = None, metavar: str | None = None, kind: type = str
    ) -> None:
        self.add_argument(name, help=told, metavar=metavar, type=kind)

    def option(
        self,
        name: str,
        told: str | None = None,
        metavar: str | None = None,
        kind: type = str,
        *,
        required: bool = False,
    ) -> None:
        default = "" if kind is str else None
        self.add_argument(
            name, help=told, metavar=metavar, type=kind, required=required, default=default
        )

    def flag(self, name: str, told: str) -> None:
        self.add_argument(name, help=told, action="store_true")

    def role(self, told: str) -> None:
        roles = ("base", "fine_tuned")
        self.add_argument("--as", dest="role", required=True, choices=roles, help=told)


_Adds = Callable[..., _Parser]  # `add_parser` of the commands


def parser() -> _Parser:
    """The whole command line; `chosen` is the command's name."""
    layout = argparse.RawDescriptionHelpFormatter
    made = _Parser(prog="evalkit", description=_ABOUT, epilog=_MORE, formatter_class=layout)
    made.add_argument("--version", action="version", version=f"evalkit {__version__}")
    commands = made.add_subparsers(
        title="commands", dest="chosen", metavar="COMMAND", required=True
    )
    _of_test_sets(commands.add_parser)
    _of_runs(commands.add_parser)
    _of_single_models(commands.add_parser)
    _of_decisions(commands.add_parser)
    _of_other_tools(commands.add_parser)
    return made


def _of_test_sets(command: _Adds) -> None:
    new = command("new", help="start a study from a test file and two model names")
    new.argument("study", "its name: lower-case letters, digits, - and _")
    questions = "held-out examples: chat JSONL, or what `evalkit convert` reads"
    new.option("--test", questions, "FILE", Path, required=True)
    new.option("--base", None, "MODEL", required=True)
    new.option("--fine-tuned", None, "MODEL", required=True)

    told = "make a test set of a JSON array, a table, another tool's rows or log"
    convert = command("convert", help=told)
    convert.argument("file", kind=Path)
    convert.option("--to", "chat JSONL", "FILE", Path, required=True)
    fields = "which field is input, expected, id; an empty name: there is none"
    for one in (new, convert):
        one.option("--columns", fields, "WHAT=NAME,...")

    told = "look for duplicates, leaks, conflicts and thin slices in a test set"
    doctor = command("doctor", help=told)
    doctor.argument("test", "chat JSONL", kind=Path)
    doctor.option("--train", "the training file, to look for leaks", kind=Path)
    doctor.option("--slices", "metadata fields, comma separated; as study.yaml beside says")
    doctor.option("--cluster", "metadata field that rows of one source share")


def _of_runs(command: _Adds) -> None:
    run = command("run", help="execute a study's notebooks and write one report")
    run.argument("study", "a folder below data/")
    names = "numbers or names, such as 01 or 01_benchmark"
    run.add_argument("--only", nargs="+", default=[], metavar="NOTEBOOK", help=names)
    run.flag("--skip-up-to-date", "take over chapters whose inputs have not changed")
    run.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        type=_parameter,
        metavar="NAME=VALUE",
        help="replace a parameter of the study file; may be repeated",
    )
    workers = {"type": int, "default": 2, "choices": range(1, 9), "metavar": "N"}
    run.add_argument("--workers", **workers, help="notebooks side by side (2)")
    run.flag("--fresh", "ask everything again, into journals of this run's own")
    run.flag("--cold", "start each kernel by itself; slower, nothing shared")

    told = "serve a rating round on this machine, one link a rater; --lock closes it"
    rate = command("rate", help=told)
    rate.argument("study")
    rate.option("--round", "the round; the study file's by default")
    rate.add_argument("--port", type=int, default=8866)
    rate.flag("--lock", "close the round for good, so that its key opens")
    rate.flag("--unfinished", "with --lock: even though raters have not finished")


def _of_single_models(command: _Adds) -> None:
    told = "ask for what a model's journal lacks as a batch, mostly at half the price; each call goes one step"
    batch = command("batch", help=told)
    batch.argument("study")
    batch.role("whose answers are asked for")
    how = batch.add_mutually_exclusive_group()
    again = "look again, ever less often, until all is collected"
    how.add_argument("--wait", action="store_true", help=again)
    alone = "write the input file and send nothing; evalkit import reads what comes of it"
    how.add_argument("--write-only", type=Path, metavar="FILE", help=alone)
    batch.flag("--cancel", "end what is under way; what was answered is kept")

    told = "archive a model's answers while it still answers, asking for what is lacking"
    freeze = command("freeze", help=told)
    freeze.argument("study")
    freeze.role("whose answers are kept")
    prompts = "further prompts, as from production: chat JSONL"
    freeze.option("--prompts", prompts, "FILE", Path)
    times = "ask each N times; as the study says"
    freeze.add_argument("--samples", type=int, default=0, metavar="N", help=times)


def _of_decisions(command: _Adds) -> None:
    told = "answer for a pipeline: exit 0 ship, 10 don't, 11 not enough evidence, 12 broken"
    gate = command("gate", help=told)
    which = "a run's folder or name, or a study, whose newest complete run is meant"
    gate.argument("run", which, "RUN_OR_STUDY")

    told = "say why what was changed after a result is all right; every report prints it"
    confirm = command("confirm", help=told)
    confirm.argument("study")
    confirm.argument("reason", "in words")
    unknown = (
        "only take up plans and locks that no line of the ledger knows; fine when there are none"
    )
    confirm.flag("--sealed-elsewhere", unknown)

    told = "is the record whole? recomputes every hash; exit 0 intact, 12 not"
    verify = command("verify", help=told)
    verify.argument("study")
    head = "a ledger head that you kept, or a report.html that names one"
    verify.option("--against", head, "HEAD_OR_REPORT")


def _of_other_tools(command: _Adds) -> None:
    told = "compare two files of other tools (or journals, tables): one page, no study"
    compare = command("compare", help=told)
    compare.argument("base", metavar="BASE_FILE", kind=Path)
    compare.argument("fine_tuned", metavar="FINE_TUNED_FILE", kind=Path)
    compare.option("--metric", "the score that decides, where there are several")
    compare.option("--test", "the questions, chat JSONL, for files that hold answers only", "FILE")
    arms = "of promptfoo's arms base and fine-tuned"
    compare.add_argument("--arms", nargs=2, default=("", ""), metavar="ARM", help=arms)
    loss = "also asks whether it is worse by no more than this fraction"
    compare.add_argument("--margin", type=float, default=0.0, help=loss)
    _which(compare)

    told = "put the answers of another tool's file into a study's journal"
    import_ = command("import", help=told)
    import_.argument("file", kind=Path)
    import_.role("whose answers they are")
    import_.option("--study", required=True)
    import_.option("--arm", "of promptfoo's arms the one that is meant")
    _which(import_)

    told = "write answers and A/B log as Parquet, and the votes, for other tools"
    export = command("export", help=told)
    export.argument("study")
    export.option("--to", None, "FOLDER", Path, required=True)


def _which(command: _Parser) -> None:
    command.option("--filter", "of lm-eval's filters the one that is meant", "FILTER_NAME")
    command.option("--columns", "of a table, which column holds what", "WHAT=NAME,...")


def _parameter(text: str) -> tuple[str, Value]:
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
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr is: no text ends a run that is done
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _COMMANDS[options.chosen](options) or 0
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
        _warn(f"{name} failed: {error}")
    _tell(run.report)
    return 12 if run.failed else 0


def _gate(options: argparse.Namespace) -> int:
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


def _compare(options: argparse.Namespace) -> None:
    from evalkit.report.chain import compare

    page, sentence = compare(
        options.base,
        options.fine_tuned,
        metric=options.metric,
        test_file=options.test,
        base_arm=options.arms[0],
        fine_tuned_arm=options.arms[1],
        filter_name=options.filter,
        columns=options.columns,
        margin=options.margin,
    )
    _tell(sentence)
    _tell(page)


def _bench(options: argparse.Namespace) -> Bench:
    from evalkit.benchmark.bench import Bench

    return Bench(study=Study.open(options.study))


def _import(options: argparse.Namespace) -> None:
    from evalkit.benchmark.bench import import_answers
    from evalkit.interop import read_log

    bench = _bench(options)
    log = read_log(
        options.file,
        arm=options.arm,
        filter_name=options.filter,
        columns=options.columns,
        test_file=bench.path,
    )
    _tell(import_answers(bench, log, options.role))


def _batch(options: argparse.Namespace) -> None:
    submission = _bench(options).submission(options.role)
    if options.write_only:
        nothing = f"{submission.journal} lacks no answer; nothing was written"
        for told in [*submission.write(options.write_only)] or [nothing]:
            _tell(told)
        return
    for told in submission.cancel() if options.cancel else submission.step():
        _tell(told)
    for told in submission.wait() if options.wait else ():
        _tell(told)


def _freeze(options: argparse.Namespace) -> None:
    from evalkit.benchmark.bench import freeze

    bench = _bench(options)
    _tell(freeze(bench, options.role, prompts=options.prompts, samples=options.samples))


def _rate(options: argparse.Namespace) -> int:
    from evalkit.human import serve

    study, round_ = options.study, options.round
    if not options.lock and options.unfinished:
        raise DesignError("--unfinished goes with --lock")
    if not options.lock:
        return serve.main(study, options.port, rating_round=round_)
    _tell(_as_called(serve.close(study, rating_round=round_, unfinished=options.unfinished)))
    return 0


def _confirm(options: argparse.Namespace) -> None:
    from evalkit.decision.concerns import confirm

    study, only = Study.open(options.study), options.sealed_elsewhere
    for one in confirm(study, options.reason, only_files=only):
        _tell(f"confirmed: {one}")


def _verify(options: argparse.Namespace) -> int:
    from evalkit.report.gate import verify

    found = verify(options.study, against=options.against)
    _tell(found)
    return found.code


def _doctor(options: argparse.Namespace) -> int:
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


def _export(options: argparse.Namespace) -> None:
    from evalkit.report.export import export

    for path in export(options.study, options.to):
        _tell(path)


def _new(options: argparse.Namespace) -> None:
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


def _convert(options: argparse.Namespace) -> None:
    from evalkit.report.new import convert_file

    _tell(convert_file(options.file, options.to, columns=options.columns))


def _tell(text: object, *, file: TextIO | None = None) -> None:
    """All that is printed: without keys, and nothing in it drives the terminal."""
    print(visible(redacted(str(text))), file=file, flush=True)


def _warn(text: str) -> None:
    _tell(f"evalkit: {text}", file=sys.stderr)


def _as_called(text: str) -> str:
    """The commands in a text as they must be typed: a shell that doesn't find `evalkit` needs the path it was called by."""
    if Path(sys.argv[0]).name != "evalkit" or shutil.which("evalkit"):
        return text
    commands = rf"(?<![\w/.])evalkit (?=(?:{'|'.join(_COMMANDS)}) )"
    return re.sub(commands, lambda _: f"{shlex.quote(sys.argv[0])} ", text)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int | None]] = {
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
