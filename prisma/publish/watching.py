"""Publish while training runs, from a process of its own: each checkpoint as soon as it is there, `main` at the end.

The trainer knows nothing of it: it never waits for it, and goes on if it is killed. What is stopped, on either side, is
completed by the same command.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from prisma.checkpoint import read_tensors
from prisma.errors import PrismaError, shown
from prisma.filesystem import given, sentences
from prisma.publish.commits import Hub
from prisma.publish.plan import Step
from prisma.publish.publishing import Report, publish
from prisma.publish.signing import Signer
from prisma.publish.things import TASK, about_a_model, hub_for
from prisma.run_folder import (
    PROBE,
    checkpoint_folders,
    is_finished,
    is_run,
    read_recipe,
    revision_of,
    scheduled_steps,
)

EVERY = 2.0  # seconds between two looks into the run's folder


def watch(
    run: str | Path,
    repo: str,
    hub: str | Path | None = None,
    *,
    replace: bool = False,
    public: bool = False,
    sign: str | Path | None = None,
    every: float = EVERY,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Publish the checkpoints of a run while it trains, and when it is finished, everything else.

    It may be started before the training. It returns when the run is finished and published.

    Args:
        every: how many seconds to wait between two looks into the run's folder.
        say: called with a sentence for every checkpoint, and with one before a wait for the training.

    The other arguments, and what is raised, are those of `publish`; besides, what is no run is refused.
    """
    if str(run).startswith(TASK) or about_a_model(given(run)):
        raise PrismaError(
            f"expected a run to watch; found {shown(str(run))}, which does not train: publish it without --watch"
        )
    run, hub = given(run), hub if hub is None else given(hub)
    if sign is not None:
        Signer.of(sign)  # now, and not only when the run is finished
    writer, done, is_said = hub_for(run, repo, hub), set[str](), False
    while not is_finished(run):
        if is_run(run) and (run / PROBE).is_file():
            with sentences(run):
                for step in _new_steps(run, done):
                    _put(writer, step, replace)
                    done.add(step.label)
                    say(f"published {step.label} of {repo}")
        elif not is_said:
            say(f"waiting until training begins in {run}")
            is_said = True
        if not is_finished(run):
            time.sleep(every)
    return publish(run, repo, hub, replace=replace, public=public, sign=sign)


def _new_steps(run: Path, done: set[str]) -> list[Step]:
    """The checkpoints of the schedule that are there and that were not published yet."""
    recipe = read_recipe(run)
    labels = {revision_of(step) for step in scheduled_steps(run, recipe)} - done
    folders = [folder for folder in checkpoint_folders(run) if folder.name in labels]
    images = read_tensors(run / PROBE)[0].get("images", torch.empty(0)) if folders else torch.empty(0)
    return [Step.of(run, folder, recipe.get("run"), images)[0] for folder in folders]


def _put(hub: Hub, step: Step, replace: bool) -> None:
    """Publish a checkpoint, unless it is there. Raises PrismaError if its label serves another run's."""
    there = hub.served(step.label)
    if there is not None and not hub.differing(there, step.commit):
        return
    if there is not None and not replace:
        raise PrismaError(
            f"expected {step.label} of {hub.repo} to serve this run, or not to be there; found commit {there}, with "
            "other files: choose another repository, or move the labels with --replace"
        )
    with hub.writing():
        hub.put(step.label, step.commit, step.message)
