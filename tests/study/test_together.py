"""Several analyses of the same images: each is what it is alone, pictures are read once, and runs are shared."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prisma.study.catalog import ANALYSES, analysis
from prisma.study.shards import RESULT, run_dataset_analyses, run_dataset_analysis
from prisma.study.together import read_once
from tests.study.study import job_of

NAMES = ("class_identifiability", "class_similarity_change", "memories", "rollout")


@pytest.mark.parametrize("control", ["false", "true"])
def test_each_is_what_it_is_alone_and_the_model_runs_once_for_class_space(tmp_path: Path, control: str) -> None:
    options: dict[str, dict[str, str]] = {"class_identifiability": {"control": control}}
    jobs = [job_of(name, tmp_path / name, **options.get(name, {})) for name in NAMES]
    model, runs, reads = jobs[0].model, [], []
    pictures = replace(jobs[0].pictures, read=lambda rows: reads.append(rows) or jobs[1].pictures.read(rows))  # type: ignore[func-returns-value]
    handle = model.embed.register_forward_hook(lambda *_: runs.append(1))
    together = [replace(job, model=model, pictures=pictures) for job in jobs]
    summaries = run_dataset_analyses(together, progress=False)
    handle.remove()
    assert [summary["analysis"] for summary in summaries] == list(NAMES)
    assert len(reads) == 3
    assert len(runs) == 3 * (2 if control == "false" else 3)  # of a shard: a shared run, and those that have their own
    for name in NAMES:
        job = job_of(name, tmp_path / "alone" / name, **options.get(name, {}))
        run_dataset_analysis(job, progress=False)
        kind = analysis(name).result
        found, alone = (kind.from_npz(folder / name / RESULT) for folder in (tmp_path, tmp_path / "alone"))
        assert found.metadata == alone.metadata and list(found.arrays) == list(alone.arrays)
        for array, x in alone.arrays.items():
            torch.testing.assert_close(found.arrays[array], x, equal_nan=True)


def test_what_is_there_is_not_computed_again(tmp_path: Path) -> None:
    jobs = [job_of(name, tmp_path / name) for name in NAMES[:2]]
    run_dataset_analysis(jobs[0], progress=False)
    before = (jobs[0].out / RESULT).stat().st_mtime_ns
    run_dataset_analyses(jobs, progress=False)
    assert (jobs[0].out / RESULT).stat().st_mtime_ns == before and (jobs[1].out / RESULT).is_file()


def test_what_can_share_a_run() -> None:
    assert [name for name in ANALYSES if analysis(name).reader] == list(NAMES[:3])


def test_the_last_pictures_are_kept() -> None:
    pictures, reads = job_of("rollout", Path("unused")).pictures, []
    counted = read_once(replace(pictures, read=lambda rows: reads.append(1) or pictures.read(rows)))  # type: ignore[func-returns-value]
    for rows, count in ((range(2), 1), ([0, 1], 1), (range(1, 3), 2), (range(2), 3)):
        assert torch.equal(counted.read(rows), pictures.read(rows)) and len(reads) == count
