"""How a study's models are asked: its settings and its `request.yaml`, as options of `run_automated_eval`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from evalkit.errors import DataError, DesignError
from evalkit.files import read_yaml
from evalkit.settings import TYPES, Settings, checked

Role = Literal["base", "fine_tuned"]
ROLES = ("base", "fine_tuned")
FILE = "request.yaml"
_PLAIN = (
    "system_prompt",
    "system_prompt_mode",
    "temperature",
    "send_temperature",
    "max_tokens",
    "max_completion_tokens",
    "reasoning_effort",
    "request_seed",
    "strip_think",
    "concurrency",
    "timeout_s",
    "attempts",
    "abort_after",
    "patience_s",
    "max_reply_mb",
)
_RICH = ("extra_body", "about")  # only in the file: they are no single values


def options(settings: Settings, role: Role, file: Path | None) -> dict[str, Any]:
    """What `run_automated_eval` is given for one of a study's two models.

    Args:
        settings: The study's.
        role: Which of the two.
        file: The study's `request.yaml`: names as in the settings, `extra_body` and `about`, for both models or, under
            `base:` and `fine_tuned:`, for one of them. None where there is no such file.

    Raises:
        DataError: The file holds what is no setting of a request.
    """
    plain = {name: getattr(settings, name) for name in _PLAIN}
    said = {**plain, **dict.fromkeys(_RICH), **(_read(file, role) if file else {})}
    body = {name: said.pop(name) for name in ("max_completion_tokens", "reasoning_effort")}
    body = {name: value for name, value in body.items() if value}
    has_temperature, seed = said.pop("send_temperature"), said.pop("request_seed")
    return {
        **said,
        "temperature": said["temperature"] if has_temperature else None,
        "seed": seed or None,
        "strip_think": None if said["strip_think"] else False,
        "extra_body": {**body, **(said["extra_body"] or {})},
    }


def _read(path: Path, role: Role) -> dict[str, Any]:
    """What the file says of a model: of both, and then of this one."""
    need = "the names of settings, extra_body, about; and base and fine_tuned with the same again"
    found = read_yaml(path, need=need) or {}
    parts = {one: found.pop(one, None) or {} for one in ROLES} if isinstance(found, dict) else {}
    if not parts or not all(isinstance(one, dict) for one in parts.values()):
        raise DataError(f"{path}: need {need}")
    shared = _checked(found, str(path))
    own = {one: _checked(said, f"{path}: {one}") for one, said in parts.items()}[role]
    rich = {name: {**shared.get(name, {}), **own.get(name, {})} for name in _RICH}
    return {**shared, **own, **{name: one for name, one in rich.items() if one}}


def _checked(said: Mapping[str, object], where: str) -> dict[str, Any]:
    types = {**{name: TYPES[name] for name in _PLAIN}, **dict.fromkeys(_RICH, dict)}
    try:
        return checked({str(name): one for name, one in said.items()}, types=types, where=where)
    except DesignError as why:
        raise DataError(str(why)) from None
