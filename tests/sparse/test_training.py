"""Training: one coder and many, folders, and continuing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Thread

import pytest
import torch

import prisma
from prisma.errors import NotFiniteError, PrismaError
from prisma.launched import Processes
from prisma.sparse import training
from prisma.sparse.coders import Coder, unit
from prisma.sparse.files import read_coder
from prisma.sparse.jobs import Wanted
from prisma.sparse.shards import write_activations
from prisma.sparse.training import train, train_many
from tests.variants import images_of, model_of

SITE = "blocks.0.resid_post"
QUICK = {"steps": 30, "batch": 64, "held_out": 0.2}


@pytest.fixture(scope="module")
def model() -> prisma.ViT:
    return model_of("registers", torch.float32)


@pytest.fixture(scope="module")
def images(model: prisma.ViT) -> torch.Tensor:
    return images_of(model, 30)


def same(a: Coder, b: Coder) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def test_a_coder_is_trained_on_raw_activations_and_says_how_well(model: prisma.ViT, images: torch.Tensor) -> None:
    few, many = (train(model, images, site=SITE, width=24, k=4, **{**QUICK, "steps": n}) for n in (2, 100))
    record = many.metadata["training"]
    assert many.kind == "topk" and many.site == SITE and many.W_enc.shape == (12, 24) and many.W_dec.shape == (24, 12)
    assert record["fvu"] < 0.7 * few.metadata["training"]["fvu"] and record["fvu_held_out"] < 1
    x = prisma.record(model, images, SITE)[1][SITE].flatten(0, 1)
    z = many.encode(x)
    assert ((z != 0).sum(1) <= 4).all()
    fvu = ((x - many(x)).square().sum() / (x - x.mean(0)).square().sum()).item()
    assert min(record["fvu"], record["fvu_held_out"]) < fvu < max(record["fvu"], record["fvu_held_out"])
    assert record["gamma"] > 0 and torch.allclose(many.W_dec.norm(dim=1), torch.ones(24), atol=1e-5)
    assert not many.W_dec.requires_grad


def test_one_token_that_is_held_out_has_no_spread_and_no_numbers(model: prisma.ViT, images: torch.Tensor) -> None:
    """It ended a training with an error, after its last step."""
    told = train(model, images[:10], site="pooled", width=8, k=2, steps=3, batch=4, held_out=0.1).told
    assert "fvu" in told and "fvu_held_out" not in told


def test_directions_begin_at_data_points_if_asked(model: prisma.ViT, images: torch.Tensor, tmp_path: Path) -> None:
    """With hardly a step, each direction is that of a token, less the mean, and the encoder looks for it."""
    arguments = {"site": SITE, "width": 24, "k": 4, "lr": 1e-12, **QUICK, "steps": 2, "begin": "data"}
    one, other = (train(model, images, **arguments, seed=seed) for seed in (0, 1))
    x = prisma.record(model, images, SITE)[1][SITE].flatten(0, 1)
    cosines = unit(x - one.b_dec) @ one.W_dec.T
    assert cosines.amax(0).min() > 0.999 and one.told["begin"] == "data"
    assert torch.allclose(unit(one.W_enc.T), one.W_dec, atol=1e-5)
    assert len(cosines.argmax(0).unique()) == 24 and not torch.allclose(one.W_dec, other.W_dec)
    longer = {**arguments, "lr": 1e-3, "steps": 6, "checkpoint_every": 3}
    whole = train(model, images, **longer, out=tmp_path / "a")
    with stopped_before(4, pytest.MonkeyPatch()):
        train(model, images, **longer, out=tmp_path / "b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prisma.sparse.jobs.Job.begin", lambda *_: pytest.fail("tokens are read again"))
        assert same(whole, train(model, images, **longer, out=tmp_path / "b", resume=True))
    plain = train(model, images, **{**arguments, "begin": None}, out=tmp_path / "c")
    assert "begin" not in json.loads((tmp_path / "c" / "recipe.json").read_text()) and "begin" not in plain.told


def test_many_coders_on_one_pass_are_those_of_passes_of_their_own(
    model: prisma.ViT, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    real = training.source_of(model, images, [SITE]).__class__.read
    monkeypatch.setattr(
        training.source_of(model, images, [SITE]).__class__,
        "read",
        lambda s, rows: runs.append(len(rows)) or real(s, rows),
    )
    wanted = [Wanted(site=SITE, width=16, k=2), Wanted(site=SITE, width=20, k=3, kind="batchtopk", seed=1)]
    together = train_many(model, images, wanted, **QUICK)
    assert sum(runs) == 1 + 24 + 6  # for the widths, for training, for what is held out
    assert same(together[0], train(model, images, site=SITE, width=16, k=2, **QUICK))
    assert same(together[1], train(model, images, site=SITE, width=20, k=3, kind="batchtopk", seed=1, **QUICK))


def test_several_sites_and_kinds_on_one_pass(model: prisma.ViT, images: torch.Tensor) -> None:
    reads, writes = "blocks.0.ln2.normalized", "blocks.0.mlp_out"
    found = train_many(model, images, [
        Wanted(site=reads, target=writes, width=16, k=3, skip=True),
        Wanted(site=(SITE, "blocks.1.resid_post"), width=16, k=3),
        Wanted(site=SITE, width=16, k=3, kind="matryoshka"),
        Wanted(site=SITE, width=16, k=3, kind="jumprelu"),
    ], **{**QUICK, "steps": 100})  # fmt: skip
    transcoder, crosscoder, matryoshka, _ = found
    assert transcoder.config.target == writes and transcoder.config.skip and not transcoder.config.centred
    _, acts = prisma.record(model, images, [reads, writes])
    x, y = acts[reads].flatten(0, 1), acts[writes].flatten(0, 1)
    assert ((y - transcoder(x)).square().sum() / (y - y.mean(0)).square().sum()).item() < 0.5
    assert crosscoder.config.widths == (12, 12) and crosscoder.site == f"{SITE} + blocks.1.resid_post"
    assert matryoshka.config.prefixes == (2, 8, 16)


def test_a_crosscoder_over_checkpoints(model: prisma.ViT, images: torch.Tensor) -> None:
    models = {"step-1": model, "step-2": model_of("registers", torch.float32, seed=1)}
    coder = train(models, images, site=SITE, width=16, k=3, tokens=("class", "patches"), **QUICK)
    assert coder.config.sites == (f"{SITE}@step-1", f"{SITE}@step-2")
    assert set(coder.metadata["training"]["model_sha256"]) == set(models)


def test_activations_on_disk_are_as_good_as_the_model(model: prisma.ViT, images: torch.Tensor, tmp_path: Path) -> None:
    shards = write_activations(model, images, tmp_path, sites=[SITE], shard_size=7)
    live, stored = (train(m, i, site=SITE, width=16, k=3, **QUICK) for m, i in ((model, images), (None, shards)))
    assert stored.metadata["training"]["fvu"] == pytest.approx(live.metadata["training"]["fvu"], rel=0.02)
    assert stored.metadata["training"]["model_sha256"] == live.metadata["training"]["model_sha256"]
    with pytest.raises(PrismaError, match="expected a model that computes the activations, or activations on disk"):
        train(None, images, site=SITE, width=16, k=3)


@contextmanager
def stopped_before(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A training in this block is stopped before a step."""
    real = training.Stream.at

    def at(stream: training.Stream, now: int) -> dict[str, torch.Tensor]:
        if now == step:
            raise KeyboardInterrupt
        return real(stream, now)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training.Stream, "at", at)
        yield


def test_a_stopped_training_continues_with_the_same_bits(
    model: prisma.ViT, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"site": SITE, "width": 16, "k": 3, "kind": "batchtopk", **QUICK, "checkpoint_every": 10}
    whole = train(model, images, **arguments, out=tmp_path / "whole")
    with stopped_before(25, monkeypatch):
        train(model, images, **arguments, out=tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "cfg.json").exists()
    with pytest.raises(PrismaError, match=r"the settings with which .* was begun, batch=64; found 32"):
        train(model, images, **{**arguments, "batch": 32}, out=tmp_path / "stopped", resume=True)
    resumed = train(model, images, **arguments, out=tmp_path / "stopped", resume=True)
    assert same(whole, resumed)
    for name in (
        "cfg.json",
        "sae_weights.safetensors",
        "metrics.jsonl",
        "checkpoints/step-000020/sae_weights.safetensors",
    ):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name
    assert same(read_coder(tmp_path / "whole"), whole)
    middle = read_coder(tmp_path / "whole" / "checkpoints" / "step-000010")
    x = prisma.record(model, images, SITE)[1][SITE].flatten(0, 1)
    assert ((x - middle(x)).square().sum() / (x - x.mean(0)).square().sum()).item() < 1  # of raw activations too
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30] and lines[-1]["error"] < lines[0]["error"]


def test_what_cannot_be_trained_is_said(model: prisma.ViT, images: torch.Tensor, tmp_path: Path) -> None:
    broken = images.clone()
    broken[3, 0, 0, 0] = torch.nan
    for arguments, message in (
        ({"k": 40}, "expected k to be at most the number of latents, 16; found 40"),
        ({"kind": "standard", "k": None}, "expected k or sparsity for a standard coder; found neither"),
        ({"kind": "nope", "k": None}, "expected kind to be one of standard, topk, .*; found 'nope'"),
        ({"held_out": 0.01}, "expected enough images to hold out 1% of them"),
        ({"step": 3}, "unknown setting 'step'; the nearest known: steps"),
        ({"steps": 0}, "expected steps to be a whole number of at least 1; found 0"),
        ({"lr": -1.0}, "expected a learning rate above 0 and below 1,000; found lr=-1.0"),
        ({"resume": True}, "expected the folder of the training to continue"),
        ({"lr": "a"}, "expected lr to be a number or none; found 'a'"),
        ({"seed": 1.5}, "expected seed to be a whole number; found 1.5"),
        ({"sparsity": -1.0, "kind": "gated"}, "expected sparsity to be a number of 0 or more; found -1.0"),
        ({"begin": "mean"}, "expected begin to be data or None, and None of a transcoder; found 'mean'"),
        ({"begin": "data", "target": "blocks.1.resid_post"}, "expected begin to be data or None, and None of a trans"),
        ({"site": 5}, "expected site to be text or a list of which each is text; found 5"),
        ({"site": ()}, "expected the name of a site; found none"),
        ({"site": ("blocks.0.*_post", SITE)}, "expected one site or several different ones"),
        ({"tokens": 5}, "expected tokens to be text or a list of which each is text; found 5"),
        ({"held_out": "a"}, "expected held_out to be a number; found 'a'"),
        ({"order_seed": -1}, "expected the seed of the order to be from 0"),
        ({"site": "blocks.7.resid_post"}, "no site of this model matches"),
        ({"images": broken}, f"expected finite activations at {SITE}; found nan in image 3"),
    ):
        with pytest.raises((PrismaError, NotFiniteError), match=message):
            train(model, **{"images": images, "site": SITE, "width": 16, "k": 3, **QUICK, **arguments})
    with pytest.raises(PrismaError, match="expected at least one coder to train; found none"):
        train_many(model, images, [])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PrismaError, match="expected a new or empty folder"):
        train(model, images, site=SITE, width=16, k=3, out=tmp_path)


def test_it_trains_within_inference_mode(model: prisma.ViT, images: torch.Tensor) -> None:
    with torch.inference_mode():
        assert train(model, images, site=SITE, width=16, k=3, **QUICK).metadata["training"]["fvu"] < 1


def test_a_training_continues_with_the_same_images_and_memory_alone(
    model: prisma.ViT, images: torch.Tensor, tmp_path: Path
) -> None:
    arguments = {"site": SITE, "width": 16, "k": 3, **QUICK, "steps": 4, "out": tmp_path / "run"}
    train(model, images, **arguments)
    with pytest.raises(PrismaError, match=r"the settings with which .* was begun, images_sha256='[0-9a-f]+'; found"):
        train(model, images.flip(0), **arguments, resume=True)
    with pytest.raises(PrismaError, match=r"was begun, memory=\d+; found 1000000"):
        train(model, images, **arguments, memory=1_000_000, resume=True)


def test_a_checkpoint_of_batchtopk_has_k_latents_too(model: prisma.ViT, images: torch.Tensor, tmp_path: Path) -> None:
    arguments = {"site": SITE, "width": 24, "k": 3, "kind": "batchtopk", **QUICK, "checkpoint_every": 10}
    whole = train(model, images, **arguments, out=tmp_path / "run")
    x = prisma.record(model, images, SITE)[1][SITE].flatten(0, 1)
    for coder in (read_coder(tmp_path / "run" / "checkpoints" / "step-000010"), whole):
        assert (coder.encode(x) != 0).double().sum(1).mean().item() == pytest.approx(3, rel=0.15)


SEVERAL = [Wanted(site=SITE, width=16, k=2), Wanted(site=SITE, width=20, k=3, kind="batchtopk"),
           Wanted(site=SITE, width=16, k=2, seed=1)]  # fmt: skip


def test_processes_share_the_coders_of_a_training_and_change_no_bit(
    model: prisma.ViT, images: torch.Tensor, tmp_path: Path
) -> None:
    settings = {**QUICK, "steps": 10, "checkpoint_every": 5}
    alone = train_many(model, images, SEVERAL, **settings, out=tmp_path / "alone")
    barrier, found = Barrier(2, timeout=60), dict[int, list[Coder]]()

    def one(rank: int) -> None:
        processes = Processes(rank, 2, barrier=lambda: (barrier.wait(), None)[1])
        found[rank] = train_many(model, images, SEVERAL, **settings, out=tmp_path / "shared", processes=processes)

    threads = [Thread(target=one, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for coders in found.values():
        assert all(same(a, b) for a, b in zip(alone, coders, strict=True))
    for i in range(3):
        for name in ("sae_weights.safetensors", "metrics.jsonl", "recipe.json", "state.safetensors"):
            paths = [tmp_path / whose / f"{i:02d}" / name for whose in ("alone", "shared")]
            assert paths[0].read_bytes() == paths[1].read_bytes(), (i, name)
    with pytest.raises(PrismaError, match=r"expected the folder of the training with processes, out=\.\.\."):
        train_many(model, images, SEVERAL, **settings, processes=Processes(0, 2))


def test_of_several_coders_each_continues_from_its_own_newest_state(
    model: prisma.ViT, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**QUICK, "steps": 12, "checkpoint_every": 4}
    whole = train_many(model, images, SEVERAL, **settings, out=tmp_path / "whole")
    real, kept = training._keep, list[Path]()

    def keep(job: training.Job, folder: Path, facts: dict[str, object]) -> None:
        if len(kept) == 5:  # the third coder has its first checkpoint alone, the others their second
            raise KeyboardInterrupt
        kept.append(folder)
        real(job, folder, facts)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training, "_keep", keep)
        train_many(model, images, SEVERAL, **settings, out=tmp_path / "stopped")
    resumed = train_many(model, images, SEVERAL, **settings, out=tmp_path / "stopped", resume=True)
    assert all(same(a, b) for a, b in zip(whole, resumed, strict=True))
    for i in range(3):
        lines = [(tmp_path / whose / f"{i:02d}" / "metrics.jsonl").read_bytes() for whose in ("whole", "stopped")]
        assert lines[0] == lines[1]


def test_wandb_is_told_of_every_checkpoint(
    model: prisma.ViT, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, float]] = []
    begun: list[tuple[object, ...]] = []

    @contextmanager
    def tracking(*settings: object) -> Iterator[tuple[object, None]]:
        begun.append(settings)
        yield told.append, None

    monkeypatch.setattr(training, "tracking", tracking)
    monkeypatch.setattr(training, "expect_packages", lambda *names, **more: None)
    arguments = {**QUICK, "steps": 10, "checkpoint_every": 5, "use_wandb": True}
    train(model, images, site=SITE, width=16, k=3, **arguments, out=tmp_path / "one")
    lines = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert told == lines and [line["step"] for line in told] == [5, 10]
    ((names, about, folder),) = begun
    assert names == ["wandb"] and folder == tmp_path / "one" and about["recipe"] == "sparse" and about["steps"] == 10  # type: ignore[index]
    train(model, images, site=SITE, width=16, k=3, **arguments, out=tmp_path / "one", resume=True)
    assert begun[1][1]["run"] == about["run"]  # type: ignore[index]
    told.clear()
    train_many(model, images, SEVERAL[:2], **arguments, out=tmp_path / "two")
    assert {"step", "00/error", "01/error", "01/dead"} <= set(told[0])
    with pytest.raises(PrismaError, match=r"expected the folder of the training with use_wandb, out=\.\.\."):
        train(model, images, site=SITE, width=16, k=3, **arguments)
