"""Training coders on the activations of a model: one, or many on one pass over the data.

The folder of a training is a coder (`cfg.json`, `sae_weights.safetensors`) with a `recipe.json`, `metrics.jsonl`, a
coder in `checkpoints/step-000128` for each checkpoint, and `state.safetensors`, from which it continues bitwise. The
folder of several has one for each of them, `00`, `01`, .... Several processes share the coders of a training: each of
them is trained by one process, on the same tokens as by one alone, so it ends with the same bits.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prisma.checkpoint import read_tensors, to_safetensors
from prisma.data.pictures import Pictures
from prisma.errors import PrismaError, expect_packages, nearest, quoted
from prisma.fields import conform
from prisma.files import expect_empty, read_json, write_atomic, write_json
from prisma.filesystem import given
from prisma.launched import ALONE, Processes
from prisma.progress import progress
from prisma.runs import Model
from prisma.sparse.activations import FILL_BYTES, Source, Stream, source_of, split_images
from prisma.sparse.belonging import hash_of_model
from prisma.sparse.coders import Coder
from prisma.sparse.files import read_coder
from prisma.sparse.jobs import MEASURED, METRICS, Job, Wanted, plan_of
from prisma.sparse.learner import Learner, Plan
from prisma.sparse.scaling import Scaling
from prisma.sparse.shards import Shards, hash_of
from prisma.train.tracking import EXTRAS, WANDB, Log, tracking

RECIPE, STATE = "recipe.json", "state.safetensors"
LATEST = 10_000_000
"""Tokens after which a latent that was not active is dead, in long trainings; in short ones a tenth of all tokens."""
HELD_OUT_IMAGES = 256  # as many of those that are held out are measured


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How coders are trained.

    Attributes:
        tokens: which tokens: "all", or some of class, registers and patches.
        steps: updates; the rate rises, stays, and falls in the last fifth.
        batch: tokens of an update.
        held_out: the share of the images, whole ones, on which no coder is trained.
        dead_after: tokens on which a latent that was not active counts as dead; by default a tenth of all tokens, at
            most 10 million.
        order_seed: of the order of images and tokens, and of which images are held out.
        out: a folder for the training, new or empty; of several coders, one in it for each: `00`, `01`, ...
        checkpoint_every: steps between two checkpoints; by default there are ten.
        resume: continue what was begun in `out`; on the CPU it ends with the same bits.
        bfloat16: compute products in bfloat16; weights and thresholds stay in float32.
        memory: bytes that the tokens in memory may take; with all tokens in it, the model runs once.
        progress: show a bar on stderr.
        use_wandb: also log every checkpoint to Weights & Biases; needs `out`.
        processes: those that share the coders (`prisma.launched`); needs `out`.
    """

    tokens: str | tuple[str, ...] = "all"
    steps: int = 2000
    batch: int = 2048
    held_out: float = 0.1
    dead_after: int | None = None
    order_seed: int = 0
    out: str | Path | None = None
    checkpoint_every: int | None = None
    resume: bool = False
    bfloat16: bool = False
    memory: int = FILL_BYTES
    progress: bool = False
    use_wandb: bool = False
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        conform("tokens", self.tokens, str | tuple[str, ...])
        for name in ("steps", "batch", "memory", "checkpoint_every", "dead_after"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise PrismaError(f"expected {name} to be a whole number of at least 1; found {quoted(value)}")
        for name, wanted in (("resume", self.resume), ("use_wandb", self.use_wandb), ("processes", self._shared)):
            if wanted and self.out is None:
                what = "to continue, " if name == "resume" else f"with {name}, "
                raise PrismaError(f"expected the folder of the training {what}out=...; found none")

    @property
    def _shared(self) -> bool:
        return self.processes.count > 1


def train(
    model: Model | Mapping[str, Model] | None,
    images: Tensor | Pictures | Shards,
    *,
    site: str | tuple[str, ...],
    width: int,
    kind: str = "topk",
    k: int | None = None,
    target: str | None = None,
    skip: bool = False,
    prefixes: tuple[int, ...] = (),
    lr: float | None = None,
    sparsity: float | None = None,
    seed: int = 0,
    begin: str | None = None,
    **settings: Any,
) -> Coder:
    """Train one sparse coder on the activations of a model at a site.

    The coder's `metadata["training"]` has what it reached: `fvu` on images that it was trained on and `fvu_held_out` on
    those that it was not; where the second is far larger, it needs more images. `dead` is the share of its latents that
    were not active for `dead_after` tokens.

        coder = prisma.sparse.train(model, images, site="blocks.3.resid_post", kind="topk", width=512, k=16)
        z = coder.encode(x)  # [..., 512], of which 16 are not zero

    Args:
        model: a model; models by name, for a crosscoder over them; or None, if the activations come from files.
        images: normalised, [n, channel, height, width]; pictures; or activations on disk (`prisma.sparse.Shards`).
        site, width, kind, k, target, skip, prefixes, lr, sparsity, seed, begin: what is trained, as in `Wanted`.
        settings: fields of `Settings`, such as steps, batch, tokens, held_out, out and resume.

    Raises:
        PrismaError: as `train_many`.
    """
    one = Wanted(
        site=site, width=width, kind=kind, k=k, target=target, skip=skip, prefixes=prefixes, lr=lr, sparsity=sparsity,
        seed=seed, begin=begin,
    )  # fmt: skip
    return train_many(model, images, [one], **settings)[0]


@torch.inference_mode(False)
@torch.enable_grad()
def train_many(
    model: Model | Mapping[str, Model] | None,
    images: Tensor | Pictures | Shards,
    wanted: Sequence[Wanted],
    **settings: Any,
) -> list[Coder]:
    """Train several coders (widths, sparsities, kinds, seeds, sites) on one pass over the activations.

    Args:
        model, images: as in `train`.
        wanted: the coders.
        settings: fields of `Settings`.

    Raises:
        PrismaError: settings or data that do not fit, activations that are not finite, a coder whose latents all died.
    """
    if unknown := [name for name in settings if name not in (known := {field.name for field in fields(Settings)})]:
        raise PrismaError(f"unknown setting {quoted(unknown[0])}; the nearest known: {nearest(unknown[0], known)}")
    if not wanted:
        raise PrismaError("expected at least one coder to train; found none")
    s = Settings(**settings)
    source = _source(model, images, wanted, s.tokens)
    train_on, kept = split_images(len(source), s.held_out, s.order_seed)
    stream = Stream(source, train_on, s.batch, s.order_seed, memory=s.memory)
    dead_after = s.dead_after or max(min(LATEST, s.steps * stream.batch // 10), stream.batch)
    scalings = {site: Scaling.of(x, site) for site, x in stream.sample(MEASURED).items()}
    device, compute = next(iter(scalings.values())).mean.device, torch.bfloat16 if s.bfloat16 else torch.float32
    plans = [plan_of(one, source, dead_after) for one in wanted]
    facts = {
        "tokens": s.tokens, "steps": s.steps, "batch": stream.batch, "held_out": s.held_out, "dead_after": dead_after,
        "order_seed": s.order_seed, "bfloat16": s.bfloat16, "memory": s.memory, "images": len(source),
        "images_sha256": _hash_of(images) if s.out is not None else None, "model_sha256": _hashes(model, images),
    }  # fmt: skip
    folders = _folders(s, plans, facts)
    own = range(len(plans))[s.processes.rank :: s.processes.count]
    jobs = [Job(Learner(plans[i], s.steps, device, compute), scalings) for i in own]
    _trained(s, stream, jobs, [folders[i] for i in own], facts)
    held = source.read(kept[:HELD_OUT_IMAGES]) if kept else {}
    seen = stream.sample(MEASURED)
    ended = {i: job.end(seen, held, facts, folders[i]) for i, job in zip(own, jobs, strict=True)}
    s.processes.barrier()
    return [ended[i] if i in ended else read_coder(_there(folder)) for i, folder in enumerate(folders)]


def _trained(
    s: Settings, stream: Stream, jobs: Sequence[Job], folders: Sequence[Path | None], facts: Mapping[str, Any]
) -> None:
    """Take the steps of some coders, and write their checkpoints."""
    for job, folder in zip(jobs, folders, strict=True):
        if s.resume and (_there(folder) / STATE).exists():
            _restore(job, _there(folder))
        else:
            job.begin(stream)
    start = min((job.learner.taken for job in jobs), default=s.steps)
    every = s.checkpoint_every or max(s.steps // 10, 1)
    with _told(s, facts, folders) as tell, progress(s.steps, None, "it", done=start, shown=s.progress) as bar:
        for step in range(start, s.steps):
            acts = stream.at(step)
            behind = [i for i, job in enumerate(jobs) if job.learner.taken == step]  # one may have a newer state
            for i in behind:
                jobs[i].step(acts)
            if s.out is not None and ((step + 1) % every == 0 or step + 1 == s.steps):
                for i in behind:
                    _keep(jobs[i], _there(folders[i]), facts)
                line = {
                    name if len(jobs) == 1 else f"{_there(folders[i]).name}/{name}": value
                    for i in behind
                    for name, value in json.loads(jobs[i].lines[-1]).items()
                    if name != "step"
                }
                tell({"step": step + 1, **line})
            bar.update()


@contextmanager
def _told(s: Settings, facts: Mapping[str, Any], folders: Sequence[Path | None]) -> Iterator[Log]:
    """Who is told of every checkpoint: Weights & Biases, if it is asked for, a run for each process."""
    if s.out is None or not s.use_wandb or not folders:
        yield lambda line: None
        return
    expect_packages(WANDB, extra=EXTRAS[WANDB])
    folder = given(s.out) if s.processes.count == 1 else _there(folders[0])
    recipe = read_json(_there(folders[0]) / RECIPE)
    known = json.dumps([str(folder.resolve()), recipe], sort_keys=True)
    run = hashlib.sha256(known.encode()).hexdigest()[:8]  # the same when the training continues
    with tracking([WANDB], {"recipe": "sparse", "run": run, **recipe}, folder) as (tell, _):
        yield tell


def _there(folder: Path | None) -> Path:
    assert folder is not None
    return folder


def _source(
    model: Model | Mapping[str, Model] | None, images: Tensor | Pictures | Shards, wanted: Sequence[Wanted], tokens: Any
) -> Source:
    sites = list(dict.fromkeys(site for one in wanted for site in (*one.sites, *([one.target] if one.target else []))))
    if isinstance(images, Shards):
        return images.expect(sites, tokens)
    if model is None:
        raise PrismaError("expected a model that computes the activations, or activations on disk; found neither")
    return source_of(model, images, sites, tokens)


def _hash_of(images: Tensor | Pictures | Shards) -> str:
    """The hash of the images of a training, by which one that continues knows them."""
    if isinstance(images, Shards):
        return str(images.index["images_sha256"])
    return images.sha256 if isinstance(images, Pictures) else hash_of(images)


def _hashes(model: Model | Mapping[str, Model] | None, images: Any) -> dict[str, str]:
    """Name of each model -> the hash of its weights."""
    if isinstance(images, Shards):
        return {"": images.index["model_sha256"]}
    models = model if isinstance(model, Mapping) else {"": model} if model is not None else {}
    return {name: hash_of_model(one) for name, one in models.items()}


def _folders(settings: Settings, plans: Sequence[Plan], facts: Mapping[str, Any]) -> list[Path | None]:
    """A folder for each coder, with its recipe. Raises PrismaError: it is in use, or was begun with other settings."""
    if settings.out is None:
        return [None] * len(plans)
    root, found = given(settings.out), list[Path | None]()
    if not settings.resume and settings.processes.is_first:
        expect_empty(root)
    settings.processes.barrier()
    for i, plan in enumerate(plans):
        folder = root if len(plans) == 1 else root / f"{i:02d}"
        told = {name: value for name, value in asdict(plan).items() if name != "begin" or value}
        recipe = json.loads(json.dumps({**facts, **told}))
        if not settings.resume:
            if i % settings.processes.count == settings.processes.rank:
                write_json(folder / RECIPE, recipe)
        elif (there := read_json(folder / RECIPE)) != recipe:
            other = next(name for name in {**there, **recipe} if there.get(name) != recipe.get(name))
            raise PrismaError(
                f"expected the settings with which {folder} was begun, {other}={quoted(there.get(other))}; found "
                f"{quoted(recipe.get(other))}"
            )
        found.append(folder)
    return found


def _keep(job: Job, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write a checkpoint of a coder, then its state."""
    job.keep(folder, facts)
    write_atomic(folder / STATE, to_safetensors(job.learner.state(), {"step": str(job.learner.taken)}))


def _restore(job: Job, folder: Path) -> None:
    """Put a coder into its newest state."""
    state, header = read_tensors(folder / STATE)
    step = int(header.get("step", "0"))
    job.learner.restore(state, step)
    lines = (folder / METRICS).read_text().splitlines()
    job.lines = [line for line in lines if json.loads(line)["step"] <= step]
