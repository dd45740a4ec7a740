"""The error tree. A message says where, what came, and what is needed.

EvalkitError
├── DataError(ValueError)     a file or a row is not what it should be
├── DesignError(ValueError)   a question that cannot be asked this way: a bad plan, parameter or split
└── ModelError                an endpoint that cannot be used: wrong key, name, address, quota
"""

from evalkit.wording import visible, without_secrets


class EvalkitError(Exception):
    """Everything evalkit raises on purpose."""

    def __str__(self) -> str:
        """The message without known keys; what nobody sees in what it quotes, or a terminal would obey, stands as its code."""
        return visible(without_secrets(super().__str__()))


class DataError(EvalkitError, ValueError):
    """A file or a row is not what it should be; the message carries file, line and remedy."""


class DesignError(EvalkitError, ValueError):
    """The question cannot be asked this way; the message says which value is needed instead."""


class ModelError(EvalkitError):
    """An endpoint cannot be used at all: wrong key, model name or address, or no quota left."""


def need_one_of(names: tuple[str, ...], what: str, given: object) -> None:
    """Refuses a choice that is none of these names.

    Raises:
        DesignError: It is not.
    """
    if given not in names:
        raise DesignError(f"{what} is {given!r}; need {' or '.join(map(repr, names))}")
