"""The error tree. A message says where, what came, and what is needed.

EvalkitError
├── DataError(ValueError)     a file or a row is not what it should be
├── DesignError(ValueError)   a question that cannot be asked this way: a bad plan, parameter or split
└── ModelError                an endpoint that cannot be used: wrong key, name, address, quota
"""


class EvalkitError(Exception):
    """Everything evalkit raises on purpose."""

    def __str__(self) -> str:
        """The message; half a character in what it quotes, which neither kernel nor terminal can take, stands as its code."""
        return super().__str__().encode("utf-8", "backslashreplace").decode("utf-8")


class DataError(EvalkitError, ValueError):
    """A file or a row is not what it should be; the message carries file, line and remedy."""


class DesignError(EvalkitError, ValueError):
    """The question cannot be asked this way; the message says which value is needed instead."""


class ModelError(EvalkitError):
    """An endpoint cannot be used at all: wrong key, model name or address, or no quota left."""
