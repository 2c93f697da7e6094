"""The commits that a finished run is published as: one per checkpoint, and `main`. Nothing is written here."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from prisma.checkpoint import CONFIG, WEIGHTS, read_checkpoint, read_tensors, weights_hash
from prisma.errors import PrismaError
from prisma.files import read_json
from prisma.ledger import expect_as_finished
from prisma.publish.card import Record, render
from prisma.publish.hub import Commit, File
from prisma.publish.manifest import Entry, fingerprint, to_json
from prisma.publish.prose import own_prose, with_prose
from prisma.repository import MAIN, MANIFEST
from prisma.run_folder import (
    CHECKPOINTS,
    PROBE,
    RECIPE,
    expect_finished,
    final_files,
    read_all_metrics,
    read_results,
    read_step,
    scheduled_folders,
)

CARD = "README.md"


@dataclass(frozen=True)
class Plan:
    """The commits of a run, by label: the steps in order, then `main`."""

    revisions: Mapping[str, Commit]
    card: str  # the text of README.md


def plan(run: Path, repo: str, *, progress: bool = False) -> Plan:
    """Read and check everything that will be published.

    Raises:
        PrismaError: the run is not finished, a file or a checkpoint of its schedule is absent or broken, weights are
            not finite, a checkpoint belongs to another step or run than it states, two checkpoints hold the same
            weights, the final weights are not those of the last checkpoint, or a file is not as training wrote it.
    """
    expect_finished(run)
    images = read_tensors(run / PROBE)[0].get("images", torch.empty(0))
    final, header = read_tensors(run / WEIGHTS)
    recipe = read_json(run / RECIPE)
    if recipe.get("run") != header.get("run"):
        raise PrismaError(
            f"expected {RECIPE} of {run} to describe the run of its weights, {header.get('run')}; found "
            f"{recipe.get('run')}"
        )
    entries, revisions, seen = [], {}, dict[str, int]()
    for folder in tqdm(scheduled_folders(run, recipe), desc="checking", unit="checkpoint", disable=not progress):
        checkpoint = read_step(run, folder, header.get("run"))
        step, weights_id = int(checkpoint.header["step"]), weights_hash(checkpoint.model.state_dict())
        if (twin := seen.setdefault(weights_id, step)) != step:
            raise PrismaError(
                f"expected different weights at every step of {run}; found equal weights at {twin} and {step}"
            )
        weights = File.of(WEIGHTS, folder / WEIGHTS)
        revisions[folder.name] = commit = Commit((File.of(CONFIG, folder / CONFIG), weights))
        logits = fingerprint(checkpoint, images)
        entries.append(Entry(step, folder.name, commit.id, weights.sha256, weights.size, logits))
    if weights_hash(final) != weights_id:
        raise PrismaError(f"expected the final weights of {run} to be those of {folder.name}; found others")
    record = Record(repo, recipe, read_results(run), read_all_metrics(run, entries[-1].step), entries)
    text = with_prose(render(record, read_checkpoint(run)), own_prose(run))
    made = {CARD: text.encode(), MANIFEST: to_json(entries)}
    sent = {name: run / name for name in final_files(run)}
    revisions[MAIN] = Commit(tuple(File.of(name, source) for name, source in (made | sent).items()))
    sums = {name: file.sha256 for name, file in _files_of_run(revisions, made)}
    expect_as_finished(run, recipe, sums)
    return Plan(revisions, text)


def _files_of_run(revisions: Mapping[str, Commit], made: Collection[str]) -> Iterator[tuple[str, File]]:
    """The files that will be published and that training wrote, by their names in the run."""
    for label, commit in revisions.items():
        for file in commit.files:
            if label != MAIN:
                yield f"{CHECKPOINTS}/{label}/{file.name}", file
            elif file.name not in made:
                yield file.name, file
