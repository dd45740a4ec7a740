"""A study: what it says of itself - every name `study.yaml` may hold, its type and its default - and its two folders.

`data/<study>` holds what must not be lost, `reports/<study>` what can be made again.
"""

from __future__ import annotations

import ast
import re
import secrets
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar, get_type_hints

import msgspec

from evalkit.errors import DataError, DesignError, need_one_of
from evalkit.files import JsonObject, no_number, read_record, read_yaml
from evalkit.wording import did_you_mean, passwords_in, plural, visible, whole, without_secrets

T = TypeVar("T")
Value = str | int | float | bool
BY_HAND = "by-hand"
FILE = "study.yaml"
PINNED = "settings.json"  # in a run's folder: what study file and command said when it began
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
_SECRET_NAME = re.compile(
    r"(?i)(^|_)(api_?key|secret|password|passwd|pwd|token|credentials?|private_key|bearer)(_|$)"
)
_SECRET_VALUE = re.compile(
    r"(?i)\b(sk-[a-z0-9_\-]{12,}|bearer\s+\S{8,}|gh[pousr]_[a-z0-9]{20,}|hf_[a-z0-9]{20,}|xox[abp]-\S{10,}"
    r"|AKIA[0-9A-Z]{16}|eyJ[\w-]{10,}\.[\w-]{10,}\.\S+)"
)
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,}")  # of the environment


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a study says of itself; "" means none, 0 means not given. `docs/data-formats.md` explains each."""

    title: str = ""

    # what is asked, and of whom
    test_file: str = "test.jsonl"
    train_file: str = ""
    base_model: str = "base"
    fine_tuned_model: str = "fine-tuned"
    base_journal: str = "journals/base.jsonl"
    fine_tuned_journal: str = "journals/fine_tuned.jsonl"
    checkpoint_journals: str = ""
    endpoint: str = "openai"
    live: bool = False
    system_prompt: str = ""
    system_prompt_mode: str = "auto"
    limit: int = 0
    strict: bool = True
    samples: int = 1
    temperature: float = 0.0
    send_temperature: bool = True
    max_tokens: int = 1024
    max_completion_tokens: int = 0
    reasoning_effort: str = ""
    request_seed: int = 0
    request_file: str = "request.yaml"
    strip_think: bool = True
    concurrency: int = 16
    timeout_s: float = 120.0
    attempts: int = 6
    abort_after: int = 25
    patience_s: float = 600.0
    max_reply_mb: float = 4.0
    prices_file: str = ""

    # how answers are scored and cut
    checker: str = "none"
    scorers: str = "similarity,normalised_exact"
    primary_metric: str = "exact_match"
    lower_is_better: str = ""
    cluster_field: str = ""
    slice_fields: str = ""
    slice_margin: float = 0.05
    metric_margin: float = 0.0
    chance_field: str = ""
    finder_pattern: str = ""
    reask_n: int = 8
    extension: bool = False
    first_look: int = 0
    seed: int = 0
    alpha: float = 0.05
    power: float = 0.8

    # who rates
    rating_round: str = "round1"
    sample_size: int = 50
    raters: str = ""
    rater: str = ""
    rating_seed: int = 0
    repeat_share: float = 0.1
    rubric_file: str = ""
    gold_file: str = ""
    simulate_raters: int = 0
    allow_incomplete: bool = False

    # what is asked, and when a version ships
    question: str = "better"
    question_margin: float = 0.0
    retires_on: str = ""
    stage: str = "pre_deploy"
    rules_file: str = ""

    # the A/B test; a plan without a name is never locked, nor one of which lock_plan is not said
    experiment_name: str = ""
    lock_plan: bool = False
    control_model: str = ""
    treatment_model: str = ""
    traffic_split: float = 0.1
    min_samples: int = 1000
    ab_hash: str = "sha256"
    ab_hash_seed: str = ""
    ab_coverage: float = 1.0
    ab_metric: str = "accepted"
    ab_metric_kind: str = "rate"
    ab_metric_better: str = ""
    expected_rate: float = 0.3
    detectable_difference: float = 0.05
    metric_sd: float = 0.0
    ab_covariate: str = ""
    users_per_day: float = 500.0
    outcome_window_days: int = 7
    looks: int = 4
    design_effect: float = 1.0
    cap_per_user: float = 0.0
    guardrails_file: str = ""
    event_log: str = "events.sqlite"
    log_user: str = ""
    log_variant: str = ""
    log_outcomes: str = ""
    log_time: str = ""
    log_experiment: str = ""
    log_exposures: str = "exposures"
    log_events: str = "outcomes"
    control_variant: str = ""
    treatment_variant: str = ""
    simulate_users: int = 0
    ab_seed: int = 0

    @property
    def control(self) -> str:
        """The control group's model: the base model unless the plan names another."""
        return self.control_model or self.base_model

    @property
    def treatment(self) -> str:
        """The treatment group's model: the fine-tuned model unless the plan names another."""
        return self.treatment_model or self.fine_tuned_model


TYPES: Mapping[str, type] = get_type_hints(Settings)
_OWN = {"study": str, "run": str, **TYPES}
_KINDS = {kind.__name__: kind for kind in (str, int, float, bool)}
QUESTIONS = ("better", "no_worse")
RETIRES_SOON_DAYS = 60  # an A/B test of a few weeks still fits in


def settings_of(values: Mapping[str, Value]) -> Settings:
    """The settings among some values, each of its type; defaults for the rest.

    Raises:
        DesignError: Another question, "no_worse" without the margin that it needs, or a `retires_on` that is no date.
    """
    said = msgspec.convert({k: one for k, one in values.items() if k in TYPES}, Settings)
    need_one_of(QUESTIONS, "question", said.question)
    if said.question == "no_worse" and not 0 < said.question_margin < 1:
        raise DesignError(
            f"question_margin: got {said.question_margin:g}; question: no_worse needs the largest loss still accepted, as a "
            "fraction above 0 and below 1, such as 0.02 for 2 points"
        )
    try:
        date.fromisoformat(said.retires_on or "2027-01-15")
    except ValueError:
        raise DesignError(
            f"retires_on: got {said.retires_on!r}; need a date such as 2027-01-15"
        ) from None
    return said


def retirement(said: Settings, today: date) -> str:
    """That the base model retires, or has; "" while that is more than `RETIRES_SOON_DAYS` away, or not said.

    Example:
        >>> retirement(Settings(retires_on="2027-01-15"), date(2027, 1, 3))
        'base retires on 2027-01-15, in 12 days'
    """
    if not said.retires_on:
        return ""
    days = (date.fromisoformat(said.retires_on) - today).days
    if days > RETIRES_SOON_DAYS:
        return ""
    name, on = visible(said.base_model), said.retires_on
    if days < 0:
        return f"{name} retired on {on}, {plural(-days, 'day')} ago: it may no longer answer"
    when = f"in {plural(days, 'day')}" if days else "today"
    return f"{name} retires on {on}, {when}"


def is_elsewhere(event_log: str) -> bool:
    """Whether a study names a database by URL or environment variable, and no file of its own."""
    return "://" in event_log or VARIABLE.fullmatch(event_log) is not None


def named(given: str | T | Iterable[str | T]) -> tuple[str | T, ...]:
    """Several names: a text with commas between them, or any iterable; a function stands for itself."""
    several = given.split(",") if isinstance(given, str) else given
    if callable(several) or not isinstance(several, Iterable):
        several = [several]
    stripped = (one.strip() if isinstance(one, str) else one for one in several)
    return tuple(one for one in stripped if one)


def checked(
    values: Mapping[str, object],
    *,
    types: Mapping[str, type] = TYPES,
    where: str = "settings refused",
) -> dict[str, Value]:
    """The values, each of its setting's type.

    Args:
        values: By name.
        types: The type each known name must have; text, int, float or bool.
        where: What an error begins with.

    Raises:
        DesignError: Names nobody knows, wrong types, numbers that are not finite, and secrets, one a line.
    """
    problems = [
        f"{name}: {told}".replace("\n", "\\n")  # a line that is forged is not one of ours
        for name, value in values.items()
        if (told := _misfit(name, value, types))
    ]
    if problems:
        raise DesignError("\n  ".join([f"{where}:", *problems]))
    return {name: msgspec.convert(whole(value), types[name]) for name, value in values.items()}


def _misfit(name: str, value: object, types: Mapping[str, type]) -> str:
    """What keeps a value from being the setting of that name; "" when nothing does."""
    # a number under a name that nobody knows is a slip: max_token
    is_slip = name not in types and isinstance(value, str) and value.isdecimal()
    if isinstance(value, str) and (
        (_SECRET_NAME.search(name) and not is_slip)
        or _SECRET_VALUE.search(value)
        or passwords_in(value)
        or without_secrets(value) != value  # a key that the environment holds
    ):
        return "looks like a secret, and settings are written in plain text; use the environment"
    if name not in types:
        return f"no such setting{did_you_mean(name, types)}"
    if told := no_number(value):
        return told
    try:
        msgspec.convert(value, types[name])
    except msgspec.ValidationError:
        return f"got {value!r} ({type(value).__name__}); need {types[name].__name__}"
    return ""


def _read_lines(path: Path) -> dict[str, object]:
    """The `name: value` lines of a YAML file.

    Raises:
        DataError: The file is missing, is not YAML, or holds no such lines.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; `evalkit new {path.parent.name}` writes one")
    found = read_yaml(path, need="flat `name: value` lines")
    if not isinstance(found, dict):
        raise DataError(f"{path}: not settings; need flat `name: value` lines")
    # YAML reads 2027-01-15 as a date of its own
    return {str(name): str(one) if type(one) is date else one for name, one in found.items()}


def declared_parameters(notebook: Path) -> dict[str, type]:
    """The parameters a notebook declares, with their types.

    A parameter that is None, or "" under a setting's name, has the setting's type: it is left to the study.

    Raises:
        DesignError: A parameter is neither text, int, float nor bool, or their cell is not Python.
        DataError: The file is no notebook.
    """
    return {name: kind for name, kind, _ in _parameters(notebook)}


def settled_parameters(notebook: Path) -> set[str]:
    """The settings that a notebook gives a value of its own, instead of leaving them to the study (None or "")."""
    found = _parameters(notebook)
    return {name for name, _, default in found if name in TYPES and default not in (None, "")}


def _parameters(notebook: Path) -> Iterator[tuple[str, type, object]]:
    """Name, type and default of each."""
    cells = [one for one in read_notebook(notebook).cells if one.cell_type == "code"]
    tagged = [one for one in cells if "parameters" in one.metadata.get("tags", ())]
    try:
        lines = ast.parse("\n".join("".join(one.source) for one in tagged)).body
    except SyntaxError as why:
        raise DesignError(
            f"{notebook}: the parameters cell is not Python ({why.msg}: {why.text}); need one assignment a line"
        ) from why
    for line in lines:
        if not isinstance(line, ast.Assign | ast.AnnAssign) or line.value is None:
            continue
        target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
        if not isinstance(target, ast.Name):
            continue
        said = ast.unparse(line.annotation) if isinstance(line, ast.AnnAssign) else ""
        try:
            default = ast.literal_eval(line.value)
        except ValueError:
            default = ...
        meant = str if default is None else type(default)
        kind = _KINDS.get(said) or TYPES.get(target.id) or meant
        if kind not in _KINDS.values() or default is ...:
            raise DesignError(
                f"{notebook}: parameter {ast.unparse(target)} = {ast.unparse(line.value)}; use str, int, float or bool"
            )
        yield target.id, kind, default


class Cell(msgspec.Struct):
    """A cell of a notebook, as far as code reads it."""

    cell_type: str
    source: str | list[str]
    metadata: JsonObject


class Notebook(msgspec.Struct):
    """A notebook, as far as code reads it."""

    metadata: JsonObject
    cells: list[Cell] = []


def read_notebook(path: Path) -> Notebook:
    """A notebook.

    Raises:
        DataError: The file is no notebook of version 4.
    """
    return read_record(path, Notebook, said="not a notebook", remedy="restore it from a copy")


def read_pinned(path: Path) -> dict[str, Value]:
    """What the study file and the command said when a run began.

    Raises:
        DataError: It is damaged.
    """
    return read_record(
        path, dict[str, Value], said="not a run's settings", remedy="run the study again"
    )


@dataclass(frozen=True, kw_only=True)
class Study:
    """Where one study lives, and what it says of itself.

    Attributes:
        name: Lower-case name; `data/<name>` is its folder.
        root: The project's folder, the one that holds `data` and `notebooks`.
        run: Name of the run this is opened for; "" is work by hand.
        overrides: Settings that replace the study's own, for this object only.
    """

    name: str
    root: Path
    run: str = ""
    overrides: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def open(
        cls, name: str, *, root: Path | None = None, run: str = "", **overrides: Value | None
    ) -> Self:
        """Finds a study by name, from the project's folder or any folder inside it.

        Args:
            name: Its name.
            root: The project's folder; found from here by default.
            run: A run's name: settings are then those the run began with. "" reads the study's file.
            overrides: Settings for this object only; None or "" leaves one as the study says.

        Raises:
            DesignError: The name is not lower-case letters, digits, "-" and "_"; or an override is
                no setting, or of another type.
            DataError: There is no such folder; the message lists those that exist.
        """
        name = checked_name(name, what="study")
        root = root or project_root()
        if not (root / "data" / name).is_dir():
            known = sorted(path.name for path in (root / "data").glob("*") if path.is_dir())
            raise DataError(
                f"{root / 'data' / name}: no such study; data/ holds {', '.join(known) or 'none'}"
            )
        left = (type(None), str)  # no comparison: a table has no one answer to it
        given = {k: one for k, one in overrides.items() if not isinstance(one, left) or one}
        return cls(name=name, root=root, run=run, overrides=checked(given))

    @cached_property
    def given(self) -> dict[str, Value]:
        """What the study's file (or the run that began with it) and the overrides say, by name.

        Raises:
            DataError: The file is missing, holds a name that neither a setting nor a
                notebook has, a value of another type, or the name of another study.
        """
        pinned = self.reports / self.run / PINNED
        if self.run and pinned.is_file():
            return {**read_pinned(pinned), **self.overrides}
        path = self.folder / FILE
        found = _read_lines(path)
        try:
            types = _OWN if _OWN.keys() >= found.keys() else self.types
            values = checked(found, types=types, where=str(path))
        except DesignError as why:
            raise DataError(str(why)) from None
        if values.get("study", self.name) != self.name:
            raise DataError(
                f"{path}: says study: {values['study']}, and stands in {self.name}; a study's name "
                f"is its folder's: write study: {self.name}"
            )
        return {**values, **self.overrides}

    @cached_property
    def settings(self) -> Settings:
        """The settings, with defaults where the study says nothing; raises as `given` does, and for half a question."""
        return settings_of(self.given)

    @cached_property
    def types(self) -> Mapping[str, type]:
        """Every name that a setting or a notebook has, and its type."""
        books = sorted((self.root / "notebooks").glob("[0-9]*.ipynb"))
        return {**ChainMap(*map(declared_parameters, books)), **_OWN}

    @property
    def folder(self) -> Path:
        """`data/<study>`."""
        return self.root / "data" / self.name

    @property
    def reports(self) -> Path:
        """`reports/<study>`."""
        return self.root / "reports" / self.name

    def runs(self) -> dict[str, Path]:
        """The folders of its runs by name."""
        return {path.name: path for path in self.reports.glob("*T*Z-*") if path.is_dir()}

    def path(self, relative: str) -> Path:
        """A file the study names, relative to its folder, and never outside it.

        Raises:
            DataError: The path leaves the study's folder.
        """
        return inside(self.folder, relative)

    def named_file(self, relative: str) -> Path | None:
        """A file the study names, None for ""; whoever reads it says when it is not there."""
        return self.path(relative) if relative else None

    def optional(self, relative: str) -> Path | None:
        """A file that nobody named, under its usual name; None when it is not there."""
        path = self.named_file(relative)
        return path if path and path.exists() else None

    def run_folder(self, run: str = "") -> Path:
        """The folder of one run, this study's own by default. Created when absent."""
        folder = self.reports / checked_run(run or self.run or BY_HAND)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def inside(folder: Path, relative: str) -> Path:
    """A path below a folder, with every link on the way followed.

    Raises:
        DataError: It leaves the folder, or is no path.
    """
    remedy = "name a file inside the study's folder"
    try:
        path = (folder / relative).resolve()
    except (OSError, ValueError, RuntimeError) as why:  # a NUL, a loop of links
        raise DataError(f"{relative!r} is no path ({why}); {remedy}") from why
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f"{relative!r} leaves {folder}; {remedy}")
    return path


def new_run_name(now: datetime | None = None) -> str:
    """`<UTC time>-<8 hex>`, sortable and unique."""
    return f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def checked_name(name: str, *, what: str) -> str:
    """Returns `name` when it is safe as a folder or file name.

    Raises:
        DesignError: It is not.
    """
    if not _NAME.match(name):
        raise DesignError(
            f"{what} {name!r}: use lower-case letters, digits, '-' and '_', at most 64, starting with a letter or digit"
        )
    return name


def checked_run(run: str) -> str:
    """Returns `run` when it is safe as a folder name.

    Raises:
        DesignError: It is not.
    """
    if run != BY_HAND and not re.match(r"\d{8}T\d{6}Z-[0-9a-f]{8}\Z", run):
        raise DesignError(
            f"run {run!r}: expected a name such as 20261124T120000Z-1a2b3c4d, as reports/ has them, or '' for work by hand"
        )
    return run


def project_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` that holds both `data` and `notebooks`.

    Raises:
        DataError: There is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "data").is_dir() and (folder / "notebooks").is_dir():
            return folder
    raise DataError(
        f"{here}: no folder here or above holds data/ and notebooks/; start from the project's folder, "
        "or name it: Study.open(..., root=Path(...))"
    )
