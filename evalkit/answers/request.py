"""How a study's models are asked: its settings and its `request.yaml`, as options of `run_automated_eval`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, read_yaml
from evalkit.settings import TYPES, Settings, checked
from evalkit.wording import redacted

CALLS_TO = "/v1/chat/completions"  # what a batch says of where its calls go


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What is sent with every call; None leaves a parameter out, and so does 0 for `max_tokens`.

    Attributes:
        strip_think: False keeps a model's thoughts in its answer; None and True tell them apart. True is written down, as
            journals of a time when it was no default have it.
        extra: Further fields of the request body, e.g. `{"max_completion_tokens": 96}`.
    """

    temperature: float | None = 0.0
    max_tokens: int | None = 1024
    seed: int | None = None
    strip_think: bool | None = None
    extra: Mapping[str, object] = field(default_factory=dict)

    def body(self) -> JsonObject:
        """The fields as sent."""
        most = self.max_tokens or None
        own = {"temperature": self.temperature, "max_tokens": most, "seed": self.seed}
        return {**{name: value for name, value in own.items() if value is not None}, **self.extra}

    def call(
        self,
        model: str,
        messages: Sequence[Mapping[str, object]],
        request: Mapping[str, object] | None = None,
    ) -> JsonObject:
        """The whole body of one call; `request` is what its row adds: tools and the like."""
        return {"model": model, **self.body(), **(request or {}), "messages": messages}

    def recorded(self) -> JsonObject:
        """The fields as a journal records them and keys its calls by.

        Raises:
            DesignError: One of them is not JSON, is not to be chosen, or looks like a key, which no file may hold.
        """
        if wrong := {"model", "messages", "stream"} & self.extra.keys():
            named = ", ".join(sorted(wrong))
            raise DesignError(f"extra_body holds {named}, which evalkit says itself")
        thoughts = {} if self.strip_think is None else {"strip_think": self.strip_think}
        fields = {**self.body(), **thoughts}
        try:
            text = json.dumps(fields, allow_nan=False)
        except (TypeError, ValueError) as why:
            told = f"the parameters cannot be written as JSON ({why}): {fields}"
            raise DesignError(told) from why
        if redacted(text) != text:
            remedy = "give keys through the environment (OPENAI_API_KEY) only"
            raise DesignError(f"a parameter looks like a key; {remedy}")
        return fields


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


def options(settings: Settings, role: Role, file: Path | None) -> JsonObject:
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


def _read(path: Path, role: Role) -> JsonObject:
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


def _checked(said: Mapping[str, object], where: str) -> JsonObject:
    types = {**{name: TYPES[name] for name in _PLAIN}, **dict.fromkeys(_RICH, dict)}
    try:
        return checked({str(name): one for name, one in said.items()}, types=types, where=where)
    except DesignError as why:
        raise DataError(str(why)) from None
