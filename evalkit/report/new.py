"""A new study: its folder, its test file, and a study file whose comments explain it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from evalkit.answers import dataset
from evalkit.benchmark.doctor import hints
from evalkit.errors import DataError, DesignError
from evalkit.files import write_new
from evalkit.interop import testsets
from evalkit.show.doctor import hinted
from evalkit.study import checked_name, project_root
from evalkit.wording import plural

_NOT_IN_GIT = b"""# the A/B log holds users' ids; it stays out of git under whatever name study.yaml gives it
*.sqlite*
*.db*
*.parquet
"""
_TEMPLATE = Path(__file__).with_name("template") / "study.yaml.j2"


def new_study(
    name: str,
    *,
    test: Path,
    base: str,
    fine_tuned: str,
    columns: Mapping[str, str] | str = "",
    root: Path | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Path:
    """Writes `data/<name>/study.yaml` and the test file beside it; nothing that exists is overwritten.

    A `.gitignore` of the study's own keeps its A/B log, with the ids of users, out of git.

    Args:
        name: Lower-case letters, digits, "-" and "_".
        test: Chat JSONL is copied as it is; any other form that `testsets.convert` knows is converted.
        base: The base model's name at the endpoint.
        fine_tuned: The fine-tuned model's name.
        columns: Which field of a test file in another form holds what, where that is not plain.
        root: The project's folder; found from here by default.
        say: Is told in one line what a converted file was understood as.

    Returns:
        The study file.

    Raises:
        DesignError: The name is not usable as a folder, a model has no name, or the test file could mean two things.
        DataError: The test file is missing or unusable, or the study exists.
    """
    folder = (root or project_root()) / "data" / checked_name(name, what="study")
    if (folder / "study.yaml").exists():
        raise DataError(f"{folder / 'study.yaml'}: exists already; edit it, or choose another name")
    for option, model in (("--base", base), ("--fine-tuned", fine_tuned)):
        if not model.strip():
            raise DesignError(f"{option} is empty; name the model as the endpoint knows it")
    made, its_own = _converted(test, columns), folder / "test.jsonl"
    if made:
        say(made.understood)
    else:
        _check(test)
    if made or test.resolve() != its_own.resolve():
        folder.mkdir(parents=True, exist_ok=True)
        _put_checked(its_own, made.lines if made else test.read_bytes())
    values = {"study": name, "title": name, "base_model": base, "fine_tuned_model": fine_tuned}
    quoted = {
        name: yaml.safe_dump(value, allow_unicode=True, default_style='"', width=10_000).strip()
        for name, value in values.items()
    }
    quoted["seen"] = "\n# ".join(hinted(hints(its_own)))
    text = re.sub(
        r"\{\{ (\w+) \}\}", lambda place: quoted[place[1]], _TEMPLATE.read_text(encoding="utf-8")
    )
    write_new(folder / ".gitignore", _NOT_IN_GIT)
    _put(folder / "study.yaml", text.encode())
    return folder / "study.yaml"


def _put(path: Path, content: bytes) -> None:
    if not write_new(path, content):
        raise DataError(f"{path}: exists already; move it away, or choose another name")


def convert_file(path: Path, to: Path, *, columns: Mapping[str, str] | str = "") -> str:
    """Writes a file's rows as chat JSONL; says in one line what was understood.

    Raises:
        DataError: The file is of no known form, its rows cannot be used, or the other one exists.
        DesignError: It could mean two things.
    """
    made = testsets.convert(path, columns=columns)
    _put_checked(to, made.lines)
    return made.understood


def _converted(test: Path, columns: Mapping[str, str] | str) -> testsets.Converted | None:
    """None of a file with rows of chat JSONL: the faults of the others are told line by line."""
    if not columns and dataset.read_examples(test, strict=False).examples:
        return None
    try:
        made = testsets.convert(test, columns=columns)
    except DataError:
        with test.open("rb") as file:
            holds_objects = file.read(4096).lstrip().startswith(b"{")
        if columns or dataset.looks_otherwise(test) or not holds_objects:
            raise
        return None
    return None if made.is_chat else made


def _put_checked(path: Path, content: bytes) -> None:
    """Only what a study can use stays."""
    _put(path, content)
    try:
        _check(path)
    except DataError:
        path.unlink()
        raise


def next_step(study_file: Path) -> str:
    """What to do with a study that was just written."""
    name = study_file.parent.name
    seen = "\n".join(f"  - {one}" for one in hinted(hints(study_file.with_name("test.jsonl"))))
    return f"""Wrote {study_file} and copied the test file beside it.

Seen in the rows; declare in study.yaml what fits, before the first look at results:
{seen}

Next:
  1. export OPENAI_API_KEY=...          the key is read from the environment only
     export OPENAI_BASE_URL=...         only for another server than OpenAI's; a local one mostly needs no key
  2. evalkit doctor data/{name}/test.jsonl   is the test set fit to test with?
  3. evalkit run {name} --only 01 02 07      asks both models and compares them; then open the report it names
  4. name the raters in study.yaml, then:
     evalkit run {name} --only 03            draws the pairs for blind rating
     evalkit rate {name}                     prints one link a rater; when all have finished:
     evalkit rate {name} --lock              closes the round
  5. evalkit run {name}                      everything, with what people said
For an A/B test fill in its plan in study.yaml, name it (experiment_name) and say lock_plan: true; until then nothing is locked.
`git add data/{name}` takes the study, its answers and votes; its .gitignore keeps the A/B log out, which holds users' ids.
"""


def _check(test: Path) -> None:
    if not test.is_file():
        raise DataError(f"{test}: no such file; need chat JSONL")
    problems = dataset.read_examples(test, strict=False).problems
    if problems:
        first, n = problems[0], plural(len(problems), "problem")
        raise DataError(
            f"{test}:{first.line}: {first.problem}; {first.remedy} ({n}; `evalkit doctor {test}` lists them)"
        )
