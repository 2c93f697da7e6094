"""One call to the Hub's client, whose errors become sentences.

An error of the client holds the whole request, and with it the token; a pickle or a traceback of it would too. So
nothing of it is kept but its words, and the new error is raised where the old one is gone, also as its context.
"""

from collections.abc import Callable
from typing import Any

from prisma.errors import PrismaError, printable

ADVICE = {
    401: "run `hf auth login`, or set HF_TOKEN to a token that may write",
    403: "use a token that may write there, of a member of that organisation",
    404: "check the name; if it is private, use a token that may read it",
    409: "another commit was made at the same time: run the command again",
    412: "another commit was made at the same time: run the command again",
    429: "wait until the Hub takes requests again, then run the command again",
}
NO_HOSTING = (
    "the Hub asks for a paid plan (402): free accounts cannot host a Gradio Space on cpu-basic. Three ways work: "
    "--static makes a static Space of precomputed views, free for all; --hardware zero-a10g uses ZeroGPU, which hosts "
    "two Spaces of a free personal account; a PRO or Team plan hosts it as it is"
)


def asked(what: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The answer of a call.

    Args:
        what: what the call is for, as in "could not {what}".

    Raises:
        PrismaError: the Hub refuses or does not answer. It has no cause and no context.
    """
    from huggingface_hub import errors

    answered = False
    reason, status = "", 0
    try:
        answer = call(*arguments, **options)
        answered = True
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0) or 0
        reason = error.server_message or str(error)
    except (errors.HFValidationError, OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
    except Exception as error:  # the errors of its HTTP library, whose name depends on the client's version
        if type(error).__module__.split(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
            raise
        reason = str(error) or type(error).__name__
    if answered:
        return answer
    if status == 402:
        raise PrismaError(f"could not {what}: {NO_HOSTING}")
    advice = f": {ADVICE[status]}" if status in ADVICE else ""
    raise PrismaError(f"could not {what} ({without_token(reason, status)}){advice}")


def without_token(text: str, status: int = 0) -> str:
    """Words of the client on one line, without the token, should they hold it."""
    from huggingface_hub import get_token

    words = printable(" ".join(text.split()), 400)
    if (token := get_token()) and len(token) > 3:
        words = words.replace(token, "<token>")
    return f"status {status}: {words}" if status and str(status) not in words else words
