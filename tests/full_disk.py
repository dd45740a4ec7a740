"""A disk that runs full, as a process sees it."""

import resource
from contextlib import contextmanager


@contextmanager
def largest_file(size):
    """A disk that is full after so many bytes: the write is cut short, then refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
