"""Calling other libraries: their exceptions become a `PrismaError`, and their logs and warnings are silenced."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from warnings import catch_warnings

import torch

from prisma.downloads import from_the_hub, no_network
from prisma.errors import PrismaError


@contextmanager
def library_errors(what: str, *, hub: bool | str = False) -> Iterator[None]:
    """Silence a library, and raise `PrismaError("<what> could not be loaded (...)")` for any exception of it.

    Args:
        hub: the library may ask the Hub for files, of this repository if it is known. If the Hub does not answer, it
            works from the cache at once.
    """
    repo = hub if isinstance(hub, str) else ""
    try:
        with quiet(), from_the_hub(repo) if hub else nullcontext():
            yield
    except PrismaError:
        raise
    except Exception as error:  # of any kind: the contents of a file decide what its library does
        raise PrismaError(f"{what} {_why(error, repo)} ({type(error).__name__}: {one_line(error)})") from None


def _why(error: Exception, repo: str) -> str:
    """What went wrong; where files of the Hub are missing and the network is the cause, that it is."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    kinds = (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled)
    if isinstance(error, kinds) or "ffline mode" in str(error) or "connect to" in str(error):
        return f"is not in the Hub's cache, and {no_network(repo) or 'could not be downloaded from the Hub'}"
    return "could not be loaded"


@contextmanager
def quiet() -> Iterator[None]:
    """No logs and no warnings while the block lasts; logging and torch's random numbers are unchanged afterwards."""
    root, disabled = logging.root, logging.root.manager.disable
    handler = logging.NullHandler()  # without one, `logging.info` would add a handler that stays
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        with catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]):
            yield
    finally:
        logging.disable(disabled)
        root.removeHandler(handler)


def one_line(error: object) -> str:
    """The text of an error without line breaks."""
    return " ".join(str(error).split())
