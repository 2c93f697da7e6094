"""Whether a Space that runs is this build, and answers with the library's numbers."""

import time
from typing import Any

import torch

from prisma.checkpoint import CONFIG, WEIGHTS
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.loaded import Loaded, load
from prisma.publish.space.asking import without_token
from prisma.publish.space.planning import LIST, Plan
from prisma.publish.space.running import POLL, Address
from prisma.repository import Published

TOLERANCE = 1e-3  # of the largest logit: other processors round otherwise, other weights differ by far more


def expect_answers(planned: Plan, where: Address, timeout: float) -> None:
    """Wait until the Space serves this build, and compare what each model answers with the library.

    Raises:
        PrismaError: another build is served when the time is over, or a number differs.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            _expect_build(planned, where)
            return
        except _NotYetError as error:
            why = str(error)
        if time.monotonic() >= end:
            raise PrismaError(f"expected {where.app} to serve this build of {planned.space}; found {why}")
        time.sleep(min(POLL, max(0.01, end - time.monotonic())))


class _NotYetError(Exception):
    """What a Space may still do after it says that it runs: serve its last build, or nothing."""


def _expect_build(planned: Plan, where: Address) -> None:
    if planned.static:
        _expect_file(planned, where)
        return
    with _Client(where) as client:
        named = client.endpoints()
        if not {"/about", "/answer"} <= set(named):
            raise _NotYetError(f"an API with {', '.join(sorted(named)) or 'no endpoint'}")
        if (found := client.ask("/about").get("build")) != planned.build:
            raise _NotYetError(f"the build {str(found)[:12]}")
        for mouse in planned.models:
            _expect_logits(client, mouse)


def _expect_logits(client: "_Client", mouse: Published) -> None:
    """The first image, after the last step."""
    step = int(mouse.checkpoints()[-1]["step"])
    found = torch.tensor(client.ask("/answer", mouse.repo, step, 0)["logits"], dtype=torch.float64)
    wanted = logits_of(mouse)
    if found.shape != wanted.shape or bool((found - wanted).abs().max() > TOLERANCE * wanted.abs().max()):
        raise PrismaError(
            f"expected {mouse.repo} to answer in the Space as in the library, {_few(wanted)}; found {_few(found)}"
        )


def logits_of(mouse: Published) -> torch.Tensor:
    """The logits [class] of the weights of a mouse's last checkpoint for its first test image, computed here."""
    entry = mouse.checkpoints()[-1]
    mouse.file(WEIGHTS, entry["commit"])
    loaded: Loaded = load(mouse.file(CONFIG, entry["commit"]).parent)
    transform: Transform | None = loaded.transform
    if transform is None:
        raise PrismaError(f"expected a transform in {CONFIG} of {mouse.repo}; found none")
    with torch.no_grad():
        return loaded.model(transform.normalise(mouse.probe()[0][:1]))[0].double()


def _few(numbers: torch.Tensor) -> str:
    return ", ".join(f"{x:.4g}" for x in numbers.flatten()[:4].tolist())


def _expect_file(planned: Plan, where: Address) -> None:
    from huggingface_hub import get_session

    try:
        response = get_session().get(f"{where.app}/{LIST}", headers=_headers(where), timeout=30, follow_redirects=True)
        status, content = response.status_code, response.content
    except Exception as error:
        raise _NotYetError(without_token(str(error) or type(error).__name__)) from None
    if status != 200:
        raise _NotYetError(f"the status {status} for {LIST}")
    if content != planned.files[LIST]:
        raise _NotYetError("another build")


def _headers(where: Address) -> dict[str, str]:
    from huggingface_hub import get_token

    token = get_token() if where.private else None
    return {"authorization": f"Bearer {token}"} if token else {}


class _Client:
    """Gradio's client for one Space. Its errors are sentences, and hold nothing of the request."""

    def __init__(self, where: Address) -> None:
        self.where = where

    def __enter__(self) -> "_Client":
        from gradio_client import Client
        from huggingface_hub import get_token

        token = get_token() if self.where.private else None
        how: dict[str, Any] = {"verbose": False, "download_files": False, "analytics_enabled": False}
        why = ""
        try:
            self.client = Client(self.where.app, token=token, **how)
            return self
        except Exception as error:  # whatever its HTTP library raises while the Space is not there yet
            why = without_token(str(error) or type(error).__name__)
        raise _NotYetError(f"that it does not answer ({why})")

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def endpoints(self) -> list[str]:
        found: dict[str, Any] = self.client.view_api(print_info=False, return_format="dict")
        return list(found["named_endpoints"])

    def ask(self, name: str, *values: Any) -> dict[str, Any]:
        why = ""
        try:
            answer = self.client.predict(*values, api_name=name)
            if isinstance(answer, dict):
                return answer
            why = f"{type(answer).__name__} as the answer"
        except Exception as error:
            why = without_token(str(error) or type(error).__name__)
        raise PrismaError(f"expected an answer of {name} at {self.where.app}; found {why}")
