"""The analyses of the catalogue on a GPU: what the CPU computes. Deselected by default; `make gpu` runs these."""

from pathlib import Path

import pytest
import torch

from prisma.study.catalog import ANALYSES
from prisma.study.shards import run_dataset_analysis
from tests.study.conftest import small_clip
from tests.study.study import job_of
from tests.study.test_catalog import GIVEN

__all__ = ["small_clip"]
pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", ANALYSES)
def test_it_is_what_the_cpu_computes(name: str, tmp_path: Path) -> None:
    found = []
    for device in ("cpu", "cuda"):
        job = job_of(name, tmp_path / device, **GIVEN.get(name, {}))
        job.model.to(device)
        run_dataset_analysis(job, progress=False)
        found.append(ANALYSES[name].result.from_npz(tmp_path / device / "result.npz").arrays)
    expected, on_gpu = found
    for array, values in expected.items():
        torch.testing.assert_close(on_gpu[array], values, rtol=1e-8, atol=1e-8, equal_nan=True)


@pytest.mark.parametrize("corrupt", ["swap", "noise", "blur", "mean", "object"])
def test_corruptions_are_the_same_on_every_device(corrupt: str, tmp_path: Path) -> None:
    found = []
    for device in ("cpu", "cuda"):
        job = job_of("activation_patching", tmp_path / device, corrupt=corrupt)
        job.model.to(device)
        run_dataset_analysis(job, progress=False)
        found.append(ANALYSES["activation_patching"].result.from_npz(tmp_path / device / "result.npz").arrays["values"])
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-8)
