"""Other libraries are called without a trace: no logs, no warnings, no random numbers drawn, errors in one sentence."""

import logging
import warnings
from unittest.mock import patch

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from prisma import PrismaError
from prisma.pretrained.library_calls import library_errors, one_line, quiet


def test_nothing_is_said_and_all_is_as_before(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    before = torch.get_rng_state()
    with quiet():
        logging.info("makes a handler of the root logger where there is none")
        logging.getLogger("timm").error("a file is missing")
        warnings.warn("of the future", stacklevel=1)
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert logging.root.handlers == []
    assert not logging.root.manager.disable
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [KeyError("a"), AssertionError("two\nlines"), RuntimeError(), TypeError("b")])
def test_whatever_is_raised_is_one_sentence(error: Exception) -> None:
    with pytest.raises(PrismaError, match="the model could not be loaded") as found, library_errors("the model"):
        raise error
    assert type(error).__name__ in str(found.value)
    assert "\n" not in str(found.value)


def test_a_sentence_of_ours_passes() -> None:
    with pytest.raises(PrismaError, match=r"^ours$"), library_errors("the model"):
        raise PrismaError("ours")


def test_what_the_hub_lacks_is_said_so() -> None:
    with (
        patch("prisma.pretrained.library_calls.no_network", lambda *_: "the Hub sleeps"),
        pytest.raises(PrismaError, match="a/b is not in the Hub's cache, and the Hub sleeps"),
        library_errors("a/b"),
    ):
        raise LocalEntryNotFoundError("offline")


def test_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
