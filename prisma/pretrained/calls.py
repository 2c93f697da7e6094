"""Calling other libraries: what they raise becomes one sentence, and nothing is said, logged or changed by it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from warnings import catch_warnings

import torch

from prisma.errors import PrismaError


@contextmanager
def sentences(what: str) -> Iterator[None]:
    """Quiet, and whatever is raised becomes `PrismaError("<what> could not be loaded (...)")`; a PrismaError passes."""
    try:
        with quiet():
            yield
    except PrismaError:
        raise
    except Exception as error:  # of any kind: a file decides what its library is asked to do
        raise PrismaError(f"{what} {_why(error)} ({type(error).__name__}: {line(error)})") from None


def _why(error: Exception) -> str:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from_the_hub = isinstance(error, HfHubHTTPError | LocalEntryNotFoundError)
    return "is neither in the Hub's cache nor to be had from the Hub" if from_the_hub else "could not be loaded"


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged and nobody is warned; the logging and torch's random numbers are as before afterwards."""
    root, disabled = logging.root, logging.root.manager.disable
    handler = logging.NullHandler()  # `logging.info` makes a handler for good where there is none
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        with catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]):
            yield
    finally:
        logging.disable(disabled)
        root.removeHandler(handler)


def line(error: object) -> str:
    """An error's text in one line."""
    return " ".join(str(error).split())
