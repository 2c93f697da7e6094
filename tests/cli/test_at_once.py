"""Several commands on one folder, begun at the same moment by several processes."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from prisma.checkpoint import WEIGHTS, read_checkpoint
from prisma.files import exclusive, read_json
from prisma.publish import audit
from prisma.run_folder import RECIPE, RESULTS, checkpoint_folders
from prisma.train.loop import initial_model
from tests.cli.commands import Contenders
from tests.cli.running import one_sentence

TRIALS, N = 2, 3
LOOKED = "prisma.train.loop.initial_model"  # between the first look at the folder and the lock
PLANNED = "prisma.publish.folder_hub.FolderHub.writing"  # between the plan and the lock
SMALL = ["steps=2", "warmup=1", "n_layers=1", "d_model=8", "n_heads=2", "d_mlp=8"]
TRAIN = ["train", "digits", *(word for setting in SMALL for word in ("--set", setting))]
REFUSED = r"prisma: expected (to be the only process to train in .*; found another one: wait|a new or empty folder at )"


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contenders]:
    with Contenders(N, tmp_path_factory.mktemp("contenders")) as contenders:
        yield contenders


def test_of_trainers_in_one_folder_one_wins_and_all_is_its_own(at_once: Contenders, tmp_path: Path) -> None:
    for trial in range(TRIALS):
        out, seeds = tmp_path / f"run-{trial}", [N * trial + i for i in range(N)]
        ended = at_once(*([*TRAIN, "--out", str(out), "--set", f"init_seed={seed}"] for seed in seeds), at=LOOKED)
        (winner,) = (seed for seed, (code, _) in zip(seeds, ended, strict=True) if code == 0)
        for code, said in ended:
            assert code in (0, 1) and (code == 0 or re.match(REFUSED, one_sentence(said))), said
        recipe, results = read_json(out / RECIPE), read_json(out / RESULTS)
        assert recipe["training"]["init_seed"] == results["seeds"]["init"] == winner
        assert f"init_seed={winner}" in recipe["command"] and recipe["command"] == results["command"]
        folders = [out, *checkpoint_folders(out)]
        headers = [read_checkpoint(folder).header for folder in folders]
        assert {header["run"] for header in headers} == {recipe["run"]} == {results["run"]}
        first = read_checkpoint(folders[1]).model
        drawn = initial_model(first.config, winner)
        assert all((x == y).all() for x, y in zip(first.parameters(), drawn.parameters(), strict=True))
        assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_of_those_that_resume_one_run_none_spoils_it(at_once: Contenders, run: Path) -> None:
    wanted = (run / WEIGHTS).read_bytes()
    (run / RESULTS).unlink()
    settings = [*TRAIN, "--set", "steps=6", "--out", str(run), "--resume"]
    ended = at_once(*[settings] * N, at=LOOKED)
    assert 0 in (code for code, _ in ended)  # those that come when it is finished find it so
    for code, said in ended:
        assert code == 0 or re.match(REFUSED, one_sentence(said)), said
    assert (run / WEIGHTS).read_bytes() == wanted and (run / RESULTS).is_file()


def test_publishers_at_once_leave_one_whole_model(at_once: Contenders, run: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    for _ in range(TRIALS):
        ended = at_once(*[["publish", str(run), "lab/tiny", "--hub", str(hub)]] * N, at=PLANNED)
        assert 0 in (code for code, _ in ended)
        for code, said in ended:
            only = "prisma: expected to be the only process to publish lab/tiny"
            assert code == 0 or one_sentence(said).startswith(only), said
        assert audit("lab/tiny", hub) == []
        shutil.rmtree(hub)


def test_what_is_training_is_not_published(at_once: Contenders, run: Path, tmp_path: Path) -> None:
    """A run that another process trains, with and without the results that an earlier training of it left."""
    publishing = ["publish", str(run), "lab/tiny", "--hub", str(tmp_path / "hub")]
    with exclusive(run, "train"):
        (run / RESULTS).unlink()
        for code, said in at_once(*[publishing] * N):
            assert code == 1 and re.match(r"prisma: expected a finished run at .*; found no results\.json", said), said
    assert not (tmp_path / "hub").exists()
    training = [*TRAIN, "--out", str(tmp_path / "new")]
    (code, _), *published = at_once(training, *[["publish", str(tmp_path / "new"), *publishing[2:]]] * (N - 1))
    assert code == 0
    for code, said in published:
        assert code == 1 and re.match(r"prisma: expected a (finished run|run folder) at ", one_sentence(said)), said
