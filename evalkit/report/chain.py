"""The chain: all notebooks of a study in the order of their files, two at a time, into one run's folder and one page.

`compare` is the same of one notebook, on two files that other tools have left.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path

import msgspec

from evalkit import ledger, wording
from evalkit.decision import history
from evalkit.decision.history import changed_files
from evalkit.errors import DataError, DesignError, EvalkitError, ModelError
from evalkit.files import to_json, write_whole
from evalkit.interop.logs import read_log
from evalkit.report import kernels, manifest
from evalkit.report.notebook import Executed, execute
from evalkit.report.page import write_page
from evalkit.study import (
    PINNED,
    Study,
    Value,
    checked,
    new_run_name,
    project_root,
    retirement,
    settings_of,
    settled_parameters,
)

Say = Callable[[str], None]

# The chapter that another waits for, by number; one not listed waits for all before it, and nothing waits for success.
WAITS_FOR = {"02": "01", "03": "01", "04": "03", "05": "01", "06": "05"}
_MADE_BY = {
    "comparison.json": "01",
    "preference.json": "04",
    "ab_test.json": "06",
    "decision.json": "07",
    "summary.png": "07",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One chain of notebooks and its folder.

    Attributes:
        folder: `reports/<study>/<UTC time>-<8 hex>`.
        chapters: What came of each notebook, by its file's stem, in the order of their files.
        report: The page.
    """

    folder: Path
    chapters: Mapping[str, Executed]
    report: Path

    @property
    def failed(self) -> dict[str, str]:
        """File stem to error of each chapter that failed."""
        return {name: chapter.error for name, chapter in self.chapters.items() if chapter.error}


def run_study(
    name: str,
    *,
    root: Path | None = None,
    only: Sequence[str] = (),
    skip_up_to_date: bool = False,
    parameters: Mapping[str, Value] | None = None,
    workers: int = 2,
    fresh: bool = False,
    cold: bool = False,
    say: Say = print,
) -> Run:
    """Runs a study's notebooks and writes one report, whatever fails on the way.

    Args:
        name: The study; `data/<name>/study.yaml` holds its parameters.
        root: The project's folder; found from here by default.
        only: Numbers or file stems of the notebooks to run; all by default.
        skip_up_to_date: Take a chapter from the run before when nothing it reads has changed.
        parameters: Settings that replace those of the study file, for this run.
        workers: How many notebooks run side by side.
        fresh: Ask everything again, into journals of this run's own; the study's recorded ones stay as they are.
        cold: Start every kernel by itself instead of forking it from a process that has imported everything.
        say: Receives the progress lines.

    Raises:
        DesignError: A parameter or a notebook's name is refused; nothing has run then.
        DataError: There is no such study or study file.
    """
    study = Study.open(name, root=root)
    books = chosen_notebooks(study.root / "notebooks", only)
    all_books = chosen_notebooks(study.root / "notebooks")
    run_name = new_run_name()
    said_now: dict[str, Value] = {}
    if fresh:
        own = f"journals/fresh/{run_name}"
        journals = {f"{one}_journal": f"{own}/{one}.jsonl" for one in ("base", "fine_tuned")}
        said_now = {"live": True, **journals}
    said_now |= {**(parameters or {}), "study": name, "run": run_name}
    values = checked(study.given | said_now, types=study.types, where="parameters refused")
    said = settings_of(values)
    folder = study.run_folder(run_name)
    write_whole(folder / PINNED, to_json(values))
    began = time.monotonic()
    say(f"{name}: {wording.plural(len(books), 'chapter')} into {folder}")
    if told := retirement(said, datetime.now(UTC).date()):
        say(f"  {told}")
    taken = _taken_over(study, folder, books, values, say) if skip_up_to_date else {}
    for book in taken:
        say(f"  {book.stem}: up to date, taken from the run before")
    todo = [book for book in books if book not in taken]
    warm = kernels.Warm(cold=cold or len(todo) < 2)
    forked = warm.manager_class()
    with ThreadPoolExecutor(workers) as pool, closing(warm):  # which waits for no kernel then

        def run_one(book: Path) -> Executed:
            # A setting that the notebook itself says holds against study.yaml, as by hand, but not against the command.
            own = settled_parameters(book) - said_now.keys()
            return execute(
                book,
                folder / book.name,
                {name: value for name, value in values.items() if name not in own},
                folder=study.root,
                kernels=forked,
                say=lambda line: say(f"  {book.stem}: {line}"),
            )

        ran = _run_all(todo, partial(pool.submit, run_one), workers, say)
    told = _on_record(partial(history.append_decision, study, folder), say)
    chapters = {book.stem: (taken | ran)[book] for book in books}
    made = manifest.write(
        study,
        folder,
        chapters,
        books=books,
        parameters=values,
        seconds=time.monotonic() - began,
        left_out=[book.stem for book in all_books if book not in books],
    )
    report = write_page(folder)  # before the line of the run, which knows its hash
    known = {name: getattr(made, name) for name in ("made_at", "failed", "left_out")}
    told = told or _on_record(partial(history.append, study, folder, **known), say)
    if told:
        manifest.note(folder, told)
        report = write_page(folder)
    return Run(folder=folder, chapters=chapters, report=report)


def _on_record(append: Callable[..., object], say: Say) -> str:
    """Adds to the study's ledger; the report comes even where that cannot be written, and says so."""
    try:
        append(told=lambda what: say(f"  {what}"))
    except (EvalkitError, OSError) as why:
        told = f"This run does not stand in the study's history: {why}"
        say(f"  {told}")
        return told
    return ""


def chosen_notebooks(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """The notebooks to run, in the order of their files.

    Raises:
        DesignError: A name in `only` fits none of them.
    """
    books = sorted(folder.glob("[0-9]*.ipynb"))
    if not books:
        raise DataError(f"{folder}: no notebooks named like 01_benchmark.ipynb")
    for name in only:
        if not any(_fits(book, name) for book in books):
            several = " (several are separated by spaces)" if "," in name else ""
            there = ", ".join(book.stem for book in books)
            raise DesignError(f"no notebook {name!r}{several}; there are {there}")
    return [book for book in books if not only or any(_fits(book, name) for name in only)]


def _fits(book: Path, name: str) -> bool:
    return name.removesuffix(".ipynb") == book.stem or name.zfill(2) == _number(book)


def _run_all(
    books: Sequence[Path], start: Callable[[Path], Future[Executed]], most: int, say: Say
) -> dict[Path, Executed]:
    done, running, ready = dict[Path, Executed](), dict[Future[Executed], Path](), list[Path]()
    order = TopologicalSorter({book: _before(book, books) for book in books})
    order.prepare()
    while order.is_active():
        ready += order.get_ready()
        while ready and len(running) < most:
            book = ready.pop(0)
            say(f"  {book.stem}: started")
            running[start(book)] = book
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            book = running.pop(future)
            made = done[book] = future.result()
            order.done(book)
            state = f"FAILED, {made.error}" if made.error else "done"
            say(f"  {book.stem}: {state} ({made.seconds:.0f} s; {len(done)} of {len(books)})")
    return done


def _before(book: Path, books: Sequence[Path]) -> list[Path]:
    """Those of the notebooks that one waits for."""
    number = _number(book)
    if number in WAITS_FOR:
        return [one for one in books if _number(one) == WAITS_FOR[number]]
    return [one for one in books if _number(one) < number]


def _number(book: Path) -> str:
    return book.stem.split("_")[0]


def _taken_over(
    study: Study, folder: Path, books: Sequence[Path], values: Mapping[str, Value], say: Say
) -> dict[Path, Executed]:
    """Copies what is up to date and as the run before left it; a chapter is only when all it waits for are too.

    The run before is the ledger's last without a failure whose folder is still there.
    """
    ended = ledger.read(study.folder / ledger.FILE).of("run")
    there = [(study.reports / str(line.facts.get("run")), line) for line in ended]
    sound = [one for one in there if not one[1].facts.get("failed") and one[0].is_dir()]
    last, line = sound[-1] if sound else (folder, None)
    if line is None or "made" not in line.facts:  # none, or one of an earlier version
        return {}
    if told := [*changed_files(last, line)]:
        say(f"  nothing is taken over: {'; '.join(told)}")
        return {}
    known, now = manifest.read(last), manifest.fingerprint(study, books, values)
    all_books, taken = chosen_notebooks(study.root / "notebooks"), dict[Path, Executed]()
    for book in books:
        waits = set(_before(book, all_books)) - taken.keys()
        same = known.fingerprint.get(book.stem) == now[book.stem]
        made = known.chapters.get(book.stem)
        if made and same and not waits and (last / book.name).is_file():
            shutil.copy2(last / book.name, folder / book.name)
            taken[book] = msgspec.structs.replace(made, seconds=0.0, skipped=True)
    numbers = {_number(book) for book in taken}
    for file, maker in _MADE_BY.items():
        if maker in numbers and (last / file).is_file():
            shutil.copy2(last / file, folder / file)
    return taken


def compare(
    base: Path,
    fine_tuned: Path,
    *,
    metric: str = "",
    margin: float = 0.0,
    arms: Sequence[str] = ("", ""),
    meant: Mapping[str, str] = {},
    root: Path | None = None,
) -> tuple[Path, str]:
    """Compares two files by the notebook `compare.ipynb` and writes the page below `reports/compare`; no model is called.

    Args:
        base: The base model's file.
        fine_tuned: The fine-tuned model's.
        metric: The score that decides, where there are several.
        margin: The loss, as a fraction, that would still be accepted; 0 does not ask.
        arms: Of promptfoo's arms the base model's and the fine-tuned model's.
        meant: What `read_log` is told of both files: `filter_name`, `columns`, `test_file`.
        root: The project's folder; found from here by default.

    Returns:
        The page, and the comparison in a sentence.

    Raises:
        DataError: A file cannot be read; before anything is written.
        DesignError: Something could be meant in several ways, and was not named.
        ModelError: The notebook failed.
    """
    from evalkit.benchmark.comparison import compare_files
    from evalkit.interop.logs import told_apart

    root = root or project_root()
    logs = read_log(base, arm=arms[0], **meant), read_log(fine_tuned, arm=arms[1], **meant)
    sentence = str(compare_files(*logs, metric=metric, margin=margin or None))
    old, new = told_apart(*logs, [base.name, fine_tuned.name])
    study = Study(name="compare", root=root, run=new_run_name())
    folder, book = study.run_folder(), root / "notebooks/compare.ipynb"
    test_file = meant.get("test_file", "")
    values: dict[str, Value] = {
        **meant,
        "base": str(base.resolve()),
        "fine_tuned": str(fine_tuned.resolve()),
        "metric": metric,
        "margin": margin,
        "test_file": test_file and str(Path(test_file).resolve()),
        "base_arm": arms[0],
        "fine_tuned_arm": arms[1],
        "run": study.run,
    }
    began = time.monotonic()
    made = execute(book, folder / book.name, values, folder=root)
    manifest.write(
        study,
        folder,
        {book.stem: made},
        books=[book],
        parameters={**values, "title": f"{new} against {old}"},
        headline=wording.visible(sentence),
        deck=wording.visible(". ".join([*map(str, logs), "No model was called."])),
        seconds=time.monotonic() - began,
    )
    page = write_page(folder)
    if made.error:
        raise ModelError(f"{made.error}; the page so far: {page}")
    return page, sentence
