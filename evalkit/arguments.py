"""What the command line takes: its commands in the order of a study's life, their arguments, and the help."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from evalkit import __version__
from evalkit.wording import visible

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


class _Parser(argparse.ArgumentParser):
    """Its complaints quote what was typed, or what a script put there."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(visible(message), file)


def parser() -> argparse.ArgumentParser:
    """The whole command line; `chosen` is the command's name."""
    layout = argparse.RawDescriptionHelpFormatter
    made = _Parser(prog="evalkit", description=_ABOUT, epilog=_MORE, formatter_class=layout)
    made.add_argument("--version", action="version", version=f"evalkit {__version__}")
    commands = made.add_subparsers(
        title="commands", dest="chosen", metavar="COMMAND", required=True
    )
    _of_test_sets(commands)
    _of_runs(commands)
    _of_single_models(commands)
    _of_decisions(commands)
    _of_other_tools(commands)
    return made


def _of_test_sets(commands: Any) -> None:
    new = commands.add_parser("new", help="start a study from a test file and two model names")
    new.add_argument("study", help="its name: lower-case letters, digits, - and _")
    new.add_argument(
        "--test",
        type=Path,
        required=True,
        metavar="FILE",
        help="held-out examples: chat JSONL, or what `evalkit convert` reads",
    )
    new.add_argument("--base", required=True, metavar="MODEL")
    new.add_argument("--fine-tuned", required=True, metavar="MODEL")

    convert = commands.add_parser(
        "convert",
        help="make a test set of a JSON array, a table, another tool's rows or log",
    )
    convert.add_argument("file", type=Path)
    convert.add_argument("--to", type=Path, required=True, metavar="FILE", help="chat JSONL")
    for command in (new, convert):
        command.add_argument(
            "--columns",
            default="",
            metavar="WHAT=NAME,...",
            help="which field is input, expected, id; an empty name: there is none",
        )

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


def _of_runs(commands: Any) -> None:
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


def _of_single_models(commands: Any) -> None:
    batch = commands.add_parser(
        "batch",
        help="ask for what a model's journal lacks as a batch, mostly at half the price; each call goes one step",
    )
    batch.add_argument("study")
    _whose(batch, "whose answers are asked for")
    how = batch.add_mutually_exclusive_group()
    how.add_argument(
        "--wait", action="store_true", help="look again, ever less often, until all is collected"
    )
    how.add_argument(
        "--write-only",
        type=Path,
        metavar="FILE",
        help="write the input file and send nothing; evalkit import reads what comes of it",
    )
    batch.add_argument(
        "--cancel", action="store_true", help="end what is under way; what was answered is kept"
    )

    freeze = commands.add_parser(
        "freeze",
        help="archive a model's answers while it still answers, asking for what is lacking",
    )
    freeze.add_argument("study")
    _whose(freeze, "whose answers are kept")
    freeze.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="further prompts, as from production: chat JSONL",
    )
    freeze.add_argument(
        "--samples", type=int, default=0, metavar="N", help="ask each N times; as the study says"
    )


def _of_decisions(commands: Any) -> None:
    gate = commands.add_parser(
        "gate",
        help="answer for a pipeline: exit 0 ship, 10 don't, 11 not enough evidence, 12 broken",
    )
    gate.add_argument(
        "run",
        metavar="RUN_OR_STUDY",
        help="a run's folder or name, or a study, whose newest complete run is meant",
    )

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

    import_ = commands.add_parser(
        "import", help="put the answers of another tool's file into a study's journal"
    )
    import_.add_argument("file", type=Path)
    _whose(import_, "whose answers they are")
    import_.add_argument("--study", required=True)
    import_.add_argument("--arm", default="", help="of promptfoo's arms the one that is meant")
    _which(import_)

    export = commands.add_parser(
        "export", help="write answers and A/B log as Parquet, and the votes, for other tools"
    )
    export.add_argument("study")
    export.add_argument("--to", required=True, metavar="FOLDER")


def _whose(command: argparse.ArgumentParser, help_: str) -> None:
    command.add_argument(
        "--as", dest="role", required=True, choices=("base", "fine_tuned"), help=help_
    )


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
