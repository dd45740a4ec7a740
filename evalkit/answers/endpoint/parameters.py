"""What is sent with every call besides the messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalkit.errors import DesignError
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
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The fields as sent."""
        most = self.max_tokens or None
        own = {"temperature": self.temperature, "max_tokens": most, "seed": self.seed}
        return {**{name: value for name, value in own.items() if value is not None}, **self.extra}

    def call(
        self,
        model: str,
        messages: Sequence[Mapping[str, object]],
        request: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The whole body of one call; `request` is what its row adds: tools and the like."""
        return {"model": model, **self.body(), **(request or {}), "messages": messages}

    def recorded(self) -> dict[str, Any]:
        """The fields as a journal records them and keys its calls by.

        Raises:
            DesignError: One of them is not JSON, is not to be chosen, or looks like a key, which no file may hold.
        """
        if wrong := {"model", "messages", "stream"} & self.extra.keys():
            raise DesignError(
                f"extra_body holds {', '.join(sorted(wrong))}, which evalkit says itself"
            )
        thoughts = {} if self.strip_think is None else {"strip_think": self.strip_think}
        fields = {**self.body(), **thoughts}
        try:
            text = json.dumps(fields, allow_nan=False)
        except (TypeError, ValueError) as why:
            raise DesignError(
                f"the parameters cannot be written as JSON ({why}): {fields}"
            ) from why
        if redacted(text) != text:
            raise DesignError(
                "a parameter looks like a key; give keys through the environment (OPENAI_API_KEY) only"
            )
        return fields
