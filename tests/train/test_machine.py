"""A device that is not there is one sentence, and threads are as before afterwards."""

import pytest
import torch

from prisma.errors import PrismaError
from prisma.train.machine import computes_in_bfloat16, cpu_threads, in_memory, pick_device


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_a_sentence(name: str) -> None:
    with pytest.raises(PrismaError, match="expected a device such as cpu or cuda"):
        pick_device(name)
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize(("amx", "avx512"), [(False, False), (True, False), (False, True)])
def test_bfloat16_is_used_where_it_is_asked_for_and_fast(
    amx: bool, avx512: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx512)
    assert computes_in_bfloat16("bfloat16", torch.device("cpu")) == (amx or avx512)
    assert computes_in_bfloat16("bfloat16", torch.device("cuda"))
    assert not computes_in_bfloat16("float32", torch.device("cpu"))
    assert not computes_in_bfloat16("float32", torch.device("cuda"))


def test_threads_are_as_before_afterwards_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def full() -> None:
    """What torch does where there is no room: the real error of the CPU."""
    torch.empty(2**55, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ((32, 1, 1), r"a step of 32 images to fit .*: try batch_size=16, or the same batch in parts, accumulate=2 \("),
        ((30, 2, 1), r"try batch_size=15, or the same batch in parts, accumulate=3 \(with --set\)"),
        ((8, 8, 1), r"try batch_size=4 \(with --set\), in another folder; its checkpoints so far are kept"),
        ((1, 1, 1), r"try a smaller model \("),
        ((32, 4, 16), r"of 32 images of each of 16 runs to .*accumulate=8, or fewer seeds at once \("),
    ],
)
@pytest.mark.parametrize("error", [None, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_where_there_is_no_room_a_setting_to_try_is_named(
    settings: tuple[int, int, int], advice: str, error: Exception | None
) -> None:
    with pytest.raises(PrismaError, match=advice), in_memory(*settings):
        if error is not None:
            raise error
        full()


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="sizes") as error, in_memory(2, 1, 1):
        raise RuntimeError("sizes do not match")
    assert not isinstance(error.value, PrismaError)
