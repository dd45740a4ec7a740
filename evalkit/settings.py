"""A YAML file that a person wrote, read in one way: what cannot be read, and a number that is none, is refused by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import DataError

LARGEST = 2**53  # whole numbers beyond it are not the same number in every program that reads them


def read_yaml(path: Path, *, need: str) -> Any:
    """What stands in a YAML file; None in an empty one.

    Args:
        path: The file.
        need: What must stand in it, for the message.

    Raises:
        DataError: It cannot be read, is no YAML, or holds a number that is not finite or too large.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as why:
        raise DataError(f"{path}: not YAML ({' '.join(str(why).split())}); need {need}") from why
    if told := "; ".join(f"{name}: {why}" for name, why in _no_numbers(found, "")):
        raise DataError(f"{path}: {told}")
    return found


def no_number(value: object) -> str:
    """Why a value is no number to compute with; "" when it is one, or is no number at all.

    Example:
        >>> no_number(float("nan")), no_number(0.05), no_number("nan")
        ('got nan; need a finite number', '', '')
    """
    if isinstance(value, float) and not math.isfinite(value):
        return f"got {value}; need a finite number"
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"got a whole number of {value.bit_length()} bits; need one of at most {LARGEST}"
    return ""


def _no_numbers(value: Any, name: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        parts = [(str(key), one) for key, one in value.items()]
    elif isinstance(value, list):
        parts = [(str(place), one) for place, one in enumerate(value, start=1)]
    else:
        parts = []
        if why := no_number(value):
            yield name, why
    for part, one in parts:
        yield from _no_numbers(one, f"{name}.{part}" if name else part)
