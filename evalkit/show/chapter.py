"""The computed answer in which a chapter ends."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from evalkit.show import tables
from evalkit.show.tables import Html

_ROOMS = {"human": "evalkit.show.human"}  # a record's room -> the module that says its answer


def answer(*found: Any, simulated: bool = False) -> Html:
    """The answer of the chapter that ends in these records; the report shows it under the chapter's title.

    Args:
        *found: The records, or one finished sentence.
        simulated: Whether a finished sentence rests on simulated raters or users; records know it themselves.
    """
    if isinstance(found[0], str):
        return tables.answer(found[0], simulated=simulated)
    room = type(found[0]).__module__.split(".")[1]
    return import_module(_ROOMS[room]).answer(*found)
