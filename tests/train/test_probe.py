from pathlib import Path

import pytest
import torch

from prisma.data import task
from prisma.data.task import Split
from prisma.train.probe import probe_images, write_probe


def test_probe_images_take_the_classes_in_turn() -> None:
    labels = torch.tensor([2, 2, 0, 1, 1, 0, 2, 1, 0])
    split = Split(torch.arange(9.0)[:, None, None, None], labels)
    probe = probe_images(split, 7)
    assert probe.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert probe.images.flatten().tolist() == [2, 3, 0, 5, 4, 1, 8]
    assert probe_images(split, 64).labels.tolist() == [0, 1, 2] * 3


@pytest.mark.parametrize("name", ["digits", "induction"])
def test_every_task_has_a_probe_of_all_its_classes(name: str) -> None:
    probe = probe_images(task(name).splits["test"])
    n = len(task(name).labels)
    assert len(probe.images) == 64 and probe.labels[:n].tolist() == list(range(n))


def test_the_probe_is_written_once(tmp_path: Path) -> None:
    write_probe(tmp_path, task("digits"))
    before = (tmp_path / "probe.safetensors").stat().st_mtime_ns
    write_probe(tmp_path, task("digits"))
    assert (tmp_path / "probe.safetensors").stat().st_mtime_ns == before
