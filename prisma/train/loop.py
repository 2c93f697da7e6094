"""Training: from a recipe to a run folder that holds every checkpoint, the curves and the numbers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from prisma.data import task
from prisma.errors import PrismaError, expect_packages
from prisma.files import exclusive, folder_for
from prisma.filesystem import given, sentences
from prisma.launched import ALONE, Processes
from prisma.ledger import Ledger, expect_as_finished
from prisma.run_folder import METRICS, PROBE, STATE, is_finished, read_recipe, read_results, scheduled_steps
from prisma.train.clock import Clock
from prisma.train.config import Recipe
from prisma.train.data_on import data_for
from prisma.train.finish import finish
from prisma.train.fit import fit
from prisma.train.initial import initial_decoder, initial_model
from prisma.train.machine import cpu_threads, pick_device
from prisma.train.mean_weights import mean_of
from prisma.train.metrics_log import MetricsLog
from prisma.train.optimizer import make_optimizer
from prisma.train.probe import write_probe
from prisma.train.provenance import describe
from prisma.train.resume import expect_run, expect_startable, load_state, remove_checkpoints, start
from prisma.train.resume import resume as resume_in
from prisma.train.run import Run
from prisma.train.shared import expect_shares, follow, leading
from prisma.train.stopping import Stopping
from prisma.train.tracking import EXTRAS, TENSORBOARD, WANDB, Log, note_page, tracking
from prisma.train.trained import ALL, train_only
from prisma.vit import ViT

EVALUATED = 6000  # at most this many images of a split are evaluated, so that a checkpoint costs little


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    use_wandb: bool = False,
    use_tensorboard: bool = False,
    device: str | None = None,
    command: str = "prisma train",
    progress: bool = True,
    watch: Log | None = None,
    processes: Processes = ALONE,
    first: ViT | None = None,
) -> dict[str, Any]:
    """Train a mouse into the folder `out`, or resume a run that was stopped there, at whatever moment.

    On the CPU a resumed run ends with bitwise the weights of an uninterrupted one in the same environment. SIGINT
    (Ctrl-C), SIGTERM and SIGHUP take effect at the end of a step (on a GPU, of a few), after the state was saved
    (`prisma.train.stopping`).

    Args:
        resume: continue from the newest state; a finished run is left as it is.
        use_wandb: also log to Weights & Biases.
        use_tensorboard: also log to TensorBoard, in `out/tensorboard`.
        device: "cpu", "cuda", "cuda:1"; by default CUDA if there is one.
        command: the command line that recipe.json and results.json state.
        progress: show a progress bar on stderr.
        watch: is called with every line of `metrics.jsonl` once it is written; those of checkpoints have `test_loss`.
            What it raises ends the run, which can be resumed.
        processes: those that share every batch (`prisma.train.shared`); all of them call this.
        first: a model with the first weights, of the recipe's architecture; by default they are drawn.

    Returns:
        The content of `results.json`; empty in another process than the first.

    Raises:
        PrismaError: `out` holds something already, or (with `resume`) no run of this recipe; the device or a package is
            missing; a file could not be written or changed since; another process trains there; the loss is not finite.
    """
    job = Job(recipe, given(out), command, resume, first)
    expect_shares(recipe, processes)
    if not processes.is_first:
        follow(recipe, processes)
        return {}
    trackers = [name for name, wanted in ((WANDB, use_wandb), (TENSORBOARD, use_tensorboard)) if wanted]
    with leading(processes):
        return train_together(
            [job], trackers=trackers, device=device, progress=progress, watch=watch, processes=processes
        )[0]


def train_together(
    jobs: Sequence["Job"],
    *,
    trackers: Sequence[str] = (),
    device: str | None = None,
    progress: bool = True,
    watch: Log | None = None,
    processes: Processes = ALONE,
) -> list[dict[str, Any]]:
    """Train runs of one recipe with other seeds side by side in this process, as `train` does each alone.

    They take every step together: their weights are stacked, so that a GPU has more to do at once. Runs in bfloat16,
    which are large enough for a GPU, and runs that may end early or have a decoder are trained one after the other.

    Returns:
        The content of each `results.json`.

    Raises:
        PrismaError: as `train`.
    """
    expect_packages("matplotlib", extra="train")
    for name in trackers:
        expect_packages(name, extra=EXTRAS[name])
    place = pick_device(processes.device or device)
    _expect_alike(jobs, trackers)
    with ExitStack() as stack:
        todo = [job for job in jobs if not job.is_finished(place)]
        for job in todo:
            job.lock(stack, place)
        stack.enter_context(cpu_threads(jobs[0].recipe.training.threads))
        stopping = stack.enter_context(Stopping())
        begun = [job.begin(stack, place, trackers, watch) for job in todo if not job.is_finished_now()]
        for some in _stacks(begun):
            some_runs, logs = zip(*some, strict=True)
            fit(some_runs, logs, stopping, progress, processes)
        for job, (run, _) in ((job, pair) for job in todo for pair in begun if pair[0].out == job.out):
            job.results = finish(run, job.command, stopping)
    return [job.results for job in jobs]


def _stacks(begun: Sequence[tuple[Run, MetricsLog]]) -> list[list[tuple[Run, MetricsLog]]]:
    """The runs that can take their steps together: at the same step, of all weights in float32, to the last step.

    A run whose steps draw what they ask is alone, as one with a decoder is.
    """
    training = begun[0][0].recipe.training if begun else None
    alone = bool(begun) and begun[0][0].recipe.objective.has_draws
    if training and (training.precision != "float32" or training.may_end_early or training.trained != ALL or alone):
        return [[pair] for pair in begun]
    by_step = sorted(begun, key=lambda pair: pair[0].step)
    return [list(some) for _, some in groupby(by_step, key=lambda pair: pair[0].step)]


def _expect_alike(jobs: Sequence["Job"], trackers: Sequence[str]) -> None:
    """Raise PrismaError unless the runs differ in nothing but seeds and folders, and a batch is at most all images."""
    first = jobs[0].recipe
    for job in jobs:
        training = replace(
            job.recipe.training, init_seed=first.training.init_seed, order_seed=first.training.order_seed
        )
        if replace(job.recipe, training=training) != first:
            raise PrismaError("expected runs side by side to differ in their seeds alone; found other recipes")
    if len({job.out for job in jobs}) < len(jobs):
        raise PrismaError("expected a folder of its own for every run; found one twice")
    if trackers and len(jobs) > 1:
        raise PrismaError(
            f"expected one run where {trackers[0]} is wanted; found {len(jobs)}: train them one after the other"
        )
    if first.training.batch_size > (n := len(task(first.task).splits["train"].labels)):
        raise PrismaError(
            f"expected batch_size to be at most {n}, the number of training images; found {first.training.batch_size}"
        )


@dataclass
class Job:
    """A run that is asked for, from the look at its folder to its results."""

    recipe: Recipe
    out: Path
    command: str = "prisma train"  # what its files state
    resume: bool = False
    first: ViT | None = None  # a model with the first weights; by default they are drawn
    results: dict[str, Any] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)
    model: ViT | None = None
    expect_alone: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.out = given(self.out)

    def is_finished(self, place: torch.device) -> bool:
        """Whether the run was finished before. Raises PrismaError if it can neither start nor go on here."""
        self.description = describe(self.recipe, place, self.command, self.first)
        with sentences(self.out):
            if not self.resume:
                expect_startable(self.out)
                return False
            expect_run(self.out)
            return self._has_results()

    def lock(self, stack: ExitStack, place: torch.device) -> None:
        """Draw the first weights, and take the folder for this process."""
        stack.enter_context(sentences(self.out))
        training = self.recipe.training
        drawn = self.first is None
        first = initial_model(self.recipe.model, training.init_seed, training.init) if drawn else deepcopy(self.first)
        assert first is not None
        self.model = first.float().to(place)
        train_only(self.model, training.trained)
        lock = exclusive(self.out, f"train in {self.out}")
        stack.enter_context(folder_for(self.out))
        self.expect_alone = stack.enter_context(lock)

    def is_finished_now(self) -> bool:
        """The same as `is_finished`, once the folder is this process's."""
        if not self.resume:
            expect_startable(self.out)
            return False
        self.description = resume_in(self.out, self.description)
        return self._has_results()

    def begin(
        self, stack: ExitStack, place: torch.device, trackers: Sequence[str], watch: Log | None
    ) -> tuple[Run, MetricsLog]:
        """The run at its newest state, and its log."""
        track, page = stack.enter_context(tracking(trackers, self.description, self.out, watch))
        if not self.resume:
            start(self.out, self.description)
        note_page(self.out, page)
        write_probe(self.out, task(self.recipe.task))
        run = _begin(self, place, track)
        log = stack.enter_context(MetricsLog(self.out / METRICS, run.step, run.ledger.files.get(METRICS)))
        remove_checkpoints(self.out, run.step)  # once all of the past was checked
        return run, log

    def _has_results(self) -> bool:
        if is_finished(self.out):
            self.results = _finished(self.out, self.description)
        return bool(self.results)


def _finished(out: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """The results of a finished run of this description, whose files are as they were."""
    resume_in(out, description)
    results = read_results(out)
    expect_as_finished(out, read_recipe(out))
    return results


def _begin(job: Job, place: torch.device, track: Log) -> Run:
    """The run at its newest state, or at step 0. Raises PrismaError if what it wrote before was changed."""
    recipe, out, description, model = job.recipe, job.out, job.description, job.model
    assert model is not None and job.expect_alone is not None, "it is locked first"
    decoder = initial_decoder(recipe, place)
    learner, mean = recipe.objective.learner(model, decoder), mean_of(model, recipe.training)
    optimizer, run_id, ledger, step = make_optimizer(learner, recipe.training), description["run"], Ledger(out), 0
    if (out / STATE).is_file():
        sealed, last = description["format"] is not None, recipe.training.steps
        step = load_state(
            out / STATE, learner, optimizer, run_id, last=last, files=ledger.files, sealed=sealed, mean=mean
        )
    ledger.expect_unchanged()
    if not ledger.files:  # a new run, or one of version 0.1.0
        ledger.add(out / PROBE)
        ledger.add_checkpoints(*(past for past in scheduled_steps(out, description) if past < step))
    images, inputs = data_for(recipe, place, EVALUATED)
    alone, clock = job.expect_alone, Clock(out, step)
    return Run(recipe, run_id, out, model, optimizer, step, images, inputs, ledger, clock, alone, track, mean, decoder)
