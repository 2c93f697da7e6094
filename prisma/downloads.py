"""Files of the Hugging Face Hub or of its cache, and at once the sentence that says why one cannot be had.

The Hub's client repeats a failed request for half a minute, and the libraries ask for one file after another. So one
short question comes first: does the Hub answer? If not, the client works offline, from its cache, without waiting.
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prisma.errors import PrismaError, is_text, quoted
from prisma.repo_names import expect_repo_name

WAIT = 3.0  # seconds for the Hub's answer, finding its address included
REMEMBERED = 10.0  # seconds for which an answer, or the lack of one, is not asked for again


@dataclass
class _Hub:
    """What is known about the Hub in this process."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    offline_blocks: int = 0  # that run now, in any thread
    asked: dict[str, tuple[float, str | None]] = field(default_factory=dict)  # address -> (when, why no answer)


_HUB = _Hub()


def why_unreachable(repo: str = "", file: str = "config.json", revision: str | None = None) -> str | None:
    """Why the Hub does not answer for a file, as a phrase; None if it does.

    Only what it answers for that file counts: a mirror may serve files, and nothing at its root. Without a
    repository, any answer at the root is one.
    """
    from huggingface_hub import constants, hf_hub_url

    address = constants.ENDPOINT
    url = hf_hub_url(repo, file, revision=revision) if repo else address
    for place in (url, address):
        asked = _HUB.asked.get(place)
        if asked is not None and time.monotonic() - asked[0] <= REMEMBERED:
            return asked[1]
    status, reason = _ask(url)
    if status is None or status < 500:  # of the whole Hub: there is none, or it works
        _HUB.asked[address] = (time.monotonic(), reason)
    elif repo:
        reason = f"it answers with status {status}"
        _HUB.asked[url] = (time.monotonic(), reason)
    return reason


def _ask(url: str) -> tuple[int | None, str | None]:
    """(status of the answer, why there is none). In a thread: to find an address may take longer than any time limit of
    a connection.
    """
    found, seconds = list[tuple[int | None, str | None]](), _seconds()

    def ask() -> None:
        from huggingface_hub import get_session

        try:
            found.append((get_session().head(url, timeout=seconds).status_code, None))
        except Exception as error:  # of any kind: names, certificates, proxies, addresses that are none
            found.append((None, _one_line(error) or type(error).__name__))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else (None, f"no answer within {seconds:g} seconds")


def _seconds() -> float:
    """How long the Hub's answer is waited for: longer, if the user gave its client more time."""
    stated = os.environ.get("HF_HUB_ETAG_TIMEOUT", "").strip()
    plain = re.fullmatch(r"\d{1,9}(\.\d{0,9})?", stated, re.ASCII)  # the Hub's client refuses any other itself
    return max(WAIT, float(stated)) if plain else WAIT


@contextmanager
def from_the_hub(repo: str = "", file: str = "config.json", revision: str | None = None) -> Iterator[None]:
    """While the block lasts, the Hub's client, which all libraries use, is offline if the Hub does not answer.

    Args:
        repo, file, revision: what is asked for, if it is known: see `why_unreachable`.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE and not _HUB.offline_blocks:  # the user's choice
        yield
        return
    offline = why_unreachable(repo, file, revision) is not None
    if offline:
        with _HUB.lock:
            _HUB.offline_blocks += 1
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        if offline:
            with _HUB.lock:
                _HUB.offline_blocks -= 1
                constants.HF_HUB_OFFLINE = _HUB.offline_blocks > 0


def no_network(repo: str = "", file: str = "config.json", revision: str | None = None) -> str | None:
    """Why nothing, or not this file, can be downloaded now, and what to do, as a phrase; None if the Hub answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE and not _HUB.offline_blocks:
        return "HF_HUB_OFFLINE is set: unset it to download, or load a folder on this machine"
    if (reason := why_unreachable(repo, file, revision)) is None:
        return None
    return (
        f"the Hub ({constants.ENDPOINT}) cannot be reached ({reason}): connect to the network, or load a folder on "
        "this machine"
    )


def download(repo: str, file: str, revision: str | None = None, hint: str = "", kind: str = "model") -> Path:
    """One file of a repository, from the Hub or its cache.

    Args:
        revision: a branch, tag or commit; None is `main`.
        hint: what the message adds if the file or the repository is not there.
        kind: of the repository, as the Hub's client calls it.

    Raises:
        PrismaError: no network and not in the cache; a private or gated repository; no such repository, revision or
            file; a name that the Hub does not allow. The message says which.
    """
    from huggingface_hub import errors

    expect_repo_name(repo, owner=False)
    if not isinstance(revision, str | None) or revision == "" or (revision is not None and not is_text(revision)):
        raise PrismaError(f"expected a revision of {repo} as a branch, tag or commit; found {quoted(revision)}")
    at = f"{repo} at {revision}" if revision else repo
    try:
        return _fetched(repo, file, revision, kind)
    except errors.GatedRepoError:
        reason = "is gated: accept its terms on its page, then run `hf auth login` or set HF_TOKEN"
    except errors.RepositoryNotFoundError:
        reason = f"is not on the Hub; if it is private, run `hf auth login` or set HF_TOKEN{hint}"
    except errors.RevisionNotFoundError:
        reason = "is not on the Hub: the repository has no such revision"
    except errors.LocalEntryNotFoundError as error:
        why = no_network(repo, file, revision) or f"it could not be downloaded ({_one_line(error)})"
        reason = f"is not in the Hub's cache ({file}), and {why}{hint}"
    except errors.EntryNotFoundError:
        reason = f"has no {file}{hint}"
    except (errors.HFValidationError, errors.HfHubHTTPError, OSError, ValueError) as error:
        reason = f"could not be downloaded from the Hub ({type(error).__name__}: {_one_line(error)})"
    raise PrismaError(f"{at} {reason}")


def download_if_there(repo: str, file: str, revision: str | None = None, hint: str = "") -> Path | None:
    """The same; None if the repository has no such file, or without a network if the cache has none.

    Raises:
        PrismaError: as `download`, for every other reason.
    """
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return _fetched(repo, file, revision)
    except EntryNotFoundError:
        return None
    except (OSError, ValueError):
        return download(repo, file, revision, hint)  # which says why


def _fetched(repo: str, file: str, revision: str | None, kind: str = "model") -> Path:
    from huggingface_hub import hf_hub_download

    with from_the_hub(repo, file, revision):
        return Path(hf_hub_download(repo, file, revision=revision, etag_timeout=_seconds(), repo_type=kind))


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
