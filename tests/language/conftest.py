"""A word tokenizer for random models, and the mouse that speaks, loaded once."""

from typing import Any

import pytest
from torch import nn

from prisma.language.loading import load
from prisma.language.mouse import word_tokenizer

WORDS = ["the", "Ada", "Ben", "Brook", "Cole", "was", "born", "in", "Rome", "Oslo", "is", "a", "of", "city", ".", "who"]


@pytest.fixture(scope="session")
def words() -> Any:
    return word_tokenizer(WORDS)


@pytest.fixture(scope="session")
def loaded() -> tuple[nn.Module, Any]:
    """The mouse and its tokenizer. Nobody may change it."""
    return load("mice/facts")
