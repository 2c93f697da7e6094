"""A device that is not there is one sentence, and threads are as before afterwards."""

import pytest
import torch

from prisma.errors import PrismaError
from prisma.train.machine import cpu_threads, pick_device


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_a_sentence(name: str) -> None:
    with pytest.raises(PrismaError, match="expected a device such as cpu or cuda"):
        pick_device(name)
    assert pick_device("cpu").type == "cpu"


def test_threads_are_as_before_afterwards_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
