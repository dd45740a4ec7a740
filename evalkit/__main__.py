"""The command line: thin, one function a command."""

from __future__ import annotations

import argparse
import errno
import io
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit import __version__
from evalkit.errors import DesignError, EvalkitError
from evalkit.wording import redacted

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
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # as stderr is: no text ends a run that is done
    try:
        return options.command(options)
    except EvalkitError as why:
        print(f"evalkit: {_as_called(redacted(str(why)))}", file=sys.stderr)
        return 1
    except OSError as why:
        if why.filename is None and why.errno not in _REMEDIES:
            raise
        where = f"{why.filename}: " if why.filename else ""
        print(
            f"evalkit: {where}{why.strerror}; {_REMEDIES.get(why.errno or 0, _ANY_REMEDY)}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("evalkit: stopped; what was finished is kept", file=sys.stderr)
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
        say=lambda line: print(line, flush=True),
    )
    for name, error in run.failed.items():
        print(f"evalkit: {name} failed: {error}", file=sys.stderr)
    print(run.report, flush=True)
    return 12 if run.failed else 0


def _gate(options: argparse.Namespace) -> int:
    from evalkit.report.gate import gate

    found = gate(options.run)
    if found.judged:
        print(f"evalkit: {found.judged}", file=sys.stderr)
    print(found.sentence)
    return found.code


def _rate(options: argparse.Namespace) -> int:
    from evalkit.human import serve

    if options.lock:
        print(
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


def _doctor(options: argparse.Namespace) -> int:
    from evalkit.benchmark.doctor import examine

    slices = [name.strip() for name in options.slices.split(",") if name.strip()]
    found = examine(options.test, options.train, slice_fields=slices)
    lines = str(found).split("\n")
    print("\n".join(lines[:_MOST_LINES]))
    if len(lines) > _MOST_LINES:
        print(f"  ... and {len(lines) - _MOST_LINES} more")
    return 0 if found.healthy else 1


def _export(options: argparse.Namespace) -> int:
    from evalkit.report.export import export

    for path in export(options.study, Path(options.to)):
        print(path)
    return 0


def _new(options: argparse.Namespace) -> int:
    from evalkit.report.new import new_study, next_step

    made = new_study(
        options.study, test=options.test, base=options.base, fine_tuned=options.fine_tuned
    )
    print(_as_called(next_step(made)))
    return 0


def _as_called(text: str) -> str:
    """The commands in a text as they must be typed: a shell that doesn't find `evalkit` needs the path it was called by."""
    if Path(sys.argv[0]).name != "evalkit" or shutil.which("evalkit"):
        return text
    commands = r"(?<![\w/.])evalkit (?=(?:new|doctor|run|rate|gate|export) )"
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
    parser = argparse.ArgumentParser(
        prog="evalkit", description=_ABOUT, epilog=_MORE, formatter_class=layout
    )
    parser.add_argument("--version", action="version", version=f"evalkit {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="chosen", metavar="COMMAND", required=True
    )

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

    doctor = commands.add_parser(
        "doctor", help="look for duplicates, leaks, conflicts and thin slices in a test set"
    )
    doctor.add_argument("test", type=Path, help="chat JSONL")
    doctor.add_argument(
        "--train", type=Path, default=None, help="the training file, to look for leaks"
    )
    doctor.add_argument("--slices", default="", help="metadata fields, comma separated")
    doctor.set_defaults(command=_doctor)

    export = commands.add_parser(
        "export", help="write the A/B log as Parquet and the votes for other tools"
    )
    export.add_argument("study")
    export.add_argument("--to", required=True, metavar="FOLDER")
    export.set_defaults(command=_export)

    new = commands.add_parser("new", help="start a study from a test file and two model names")
    new.add_argument("study", help="its name: lower-case letters, digits, - and _")
    new.add_argument(
        "--test", type=Path, required=True, metavar="FILE", help="held-out examples, chat JSONL"
    )
    new.add_argument("--base", required=True, metavar="MODEL")
    new.add_argument("--fine-tuned", required=True, metavar="MODEL")
    new.set_defaults(command=_new)
    return parser


if __name__ == "__main__":
    sys.exit(main())
