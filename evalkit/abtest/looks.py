"""The looks in a study's ledger: every time somebody reads the effect, a line; the report prints it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from evalkit import ledger
from evalkit.errors import DataError
from evalkit.files import warned


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One reading.

    Attributes:
        at: UTC time, ISO 8601; the present when not given.
        look: Number of the planned look; None for one that was not planned.
        information: Fraction of the planned information at hand.
        effect_shown: False when the plan withheld the effect.
        verdict: As shown.
        run: Name of the run that looked; "" by hand.
        control_model: As the plan names it, so that the result is known even when the plan is not; "" in old lines.
        treatment_model: Likewise.
        simulated: Whether its users were; None in old lines.
        n_requests: Requests of the experiment that the log held; None in old lines.
        last_user: When the last user in the log first came, ISO 8601; "" in old lines, and in a log without times.
        estimate: The effect that was shown, treatment - control; None when withheld.
        sum_control: Sum of the deciding outcome over control's users of this look; None when withheld, and in old lines.
        sum_treatment: Likewise.
    """

    experiment: str
    plan_sha256: str
    look: int | None
    information: float
    n_control: int
    n_treatment: int
    effect_shown: bool
    verdict: str
    run: str = ""
    at: str = ""
    control_model: str = ""
    treatment_model: str = ""
    simulated: bool | None = None
    n_requests: int | None = None
    last_user: str = ""
    estimate: float | None = None
    sum_control: float | None = None
    sum_treatment: float | None = None


def record_look(path: str | Path, look: Look) -> Look:
    """Appends a look and brings it to the disk before anything is shown.

    Raises:
        DataError: It cannot be written.
    """
    look = look if look.at else replace(look, at=datetime.now(UTC).isoformat(timespec="seconds"))
    ledger.append(path, "look", asdict(look), at=look.at)
    return look


def read_looks(path: str | Path) -> tuple[Look, ...]:
    """The looks so far, oldest first; none when nobody has looked. A torn last line is left out with a warning.

    Raises:
        DataError: The ledger is damaged, or a line is not a look.
    """
    return tuple(_look(line, path) for line in ledger.read(path, told=warned).of("look"))


def _look(line: ledger.Line, path: str | Path) -> Look:
    try:
        return Look(**line.facts)
    except TypeError as why:
        raise DataError(
            f"{path}:{line.number}: not a look ({why}); restore the file from a copy"
        ) from why
