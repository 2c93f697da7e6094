"""The digits mouse, and images to edit it with and to measure edits on."""

from dataclasses import dataclass

import pytest
from torch import Tensor

import prisma
from prisma.data import task
from prisma.loaded import Loaded


@dataclass
class Digits:
    loaded: Loaded
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def train(self) -> tuple:
        return self.loaded.model, self.images, self.labels


@pytest.fixture(scope="session")
def digits() -> Digits:
    data = task("digits")
    return Digits(prisma.load("mice/digits"), *data.inputs("train", 800), *data.inputs("test"))
