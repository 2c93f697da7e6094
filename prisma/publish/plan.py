"""What a finished run is published as: a commit per checkpoint, and `main`. Nothing is written here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from prisma.checkpoint import CONFIG, WEIGHTS, Checkpoint, read_checkpoint, read_tensors, weights_hash
from prisma.errors import PrismaError, shown
from prisma.ledger import expect_as_finished
from prisma.progress import progress as progress_bar
from prisma.publish.card import Record, render
from prisma.publish.commits import Commit, File
from prisma.publish.manifest import Entry, Manifest, Yanked, fingerprint
from prisma.publish.mechanism_section import own_files, own_mechanism, section_in, section_of, with_section
from prisma.publish.prose import own_prose, prose_of, with_prose
from prisma.repo_names import expect_repo_name
from prisma.repository import MANIFEST
from prisma.run_folder import (
    CHECKPOINTS,
    PROBE,
    RECIPE,
    expect_finished,
    final_files,
    read_all_metrics,
    read_recipe,
    read_results,
    read_step,
    scheduled_folders,
)

CARD = "README.md"


@dataclass(frozen=True)
class Step:
    """A checkpoint that will be published."""

    label: str
    message: str  # of the commit
    commit: Commit
    entry: Entry  # without the id of the commit, which the hub gives

    @classmethod
    def of(cls, run: Path, folder: Path, run_id: str | None, images: torch.Tensor) -> "tuple[Step, str]":
        """A checkpoint of a run, checked, and the hash of its weights. `images` is the probe."""
        checkpoint = read_step(run, folder, run_id)
        weights = File.of(WEIGHTS, folder / WEIGHTS)
        commit = Commit((File.of(CONFIG, folder / CONFIG), weights))
        weights_id = weights_hash(checkpoint.model.state_dict())
        logits = fingerprint(checkpoint, images)
        step = int(checkpoint.header["step"])
        entry = Entry(step, folder.name, "", weights.sha256, weights.size, logits, commit.records)
        return cls(folder.name, f"Step {step} of run {run_id}", commit, entry), weights_id


@dataclass(frozen=True)
class Plan:
    """The steps in order, and what `main` will hold."""

    manifest: ClassVar[str] = MANIFEST  # the name of the file of `main` that states the hashes of all others
    noun: ClassVar[str] = "run"

    run: str  # its id
    steps: tuple[Step, ...]
    files: tuple[File, ...]  # of `main`, without the card and the manifest
    record: Record  # what the card is rendered from
    final: Checkpoint
    card: str  # the text of README.md, if no checkpoint is yanked

    def message(self, commits: Mapping[str, str]) -> str:
        """What the commit of `main` says."""
        return f"Run {self.run}: {len(commits)} checkpoints"

    def main(self, commits: Mapping[str, str], *, yanked: tuple[Yanked, ...] = ()) -> Commit:
        """The commit of `main`, once the commits of the steps have ids.

        Args:
            commits: label -> id of the commit that the label names.
            yanked: the checkpoints that were taken back; they are not among `commits`.
        """
        entries = tuple(replace(step.entry, commit=commits[step.label]) for step in self.steps if step.label in commits)
        schedule = tuple(step.entry.step for step in self.steps)
        text = self.card
        if yanked:
            text = render(replace(self.record, entries=entries, yanked=yanked), self.final)
            text = with_section(with_prose(text, prose_of(self.card)), section_in(self.card))
        files = (File.of(CARD, text.encode()), *self.files)
        manifest = Manifest(self.run, schedule, entries, Commit(files).records, yanked)
        return Commit((*files, File.of(MANIFEST, manifest.to_json())))


def plan(run: Path, repo: str, *, progress: bool = False) -> Plan:
    """Read and check everything that will be published.

    Raises:
        PrismaError: the run is not finished, a file or a checkpoint of its schedule is absent or broken, weights are
            not finite, a checkpoint belongs to another step or run than it states, two checkpoints hold the same
            weights, the final weights are not those of the last checkpoint, a file is not as training wrote it, or it
            is a link.
    """
    expect_repo_name(repo)
    expect_finished(run)
    for name in (*final_files(run), CHECKPOINTS):
        expect_no_link(run, name)
    images = read_tensors(run / PROBE)[0].get("images", torch.empty(0))
    final, header = read_tensors(run / WEIGHTS)
    recipe = read_recipe(run)
    run_id = header.get("run")
    if run_id is None or recipe.get("run") != run_id:
        raise PrismaError(
            f"expected {RECIPE} of {run} to describe the run of its weights, {shown(run_id)}; found "
            f"{shown(recipe.get('run'))}"
        )
    steps, seen = list[Step](), dict[str, Step]()
    folders = scheduled_folders(run, recipe)
    with progress_bar(len(folders), "checking", "checkpoint", shown=progress) as bar:
        for folder in folders:
            for name in (CONFIG, WEIGHTS):
                expect_no_link(run, f"{CHECKPOINTS}/{folder.name}/{name}")
            step, weights_id = Step.of(run, folder, run_id, images)
            if (twin := seen.setdefault(weights_id, step)) is not step:
                raise PrismaError(
                    f"expected different weights at every step of {run}; found equal weights at {twin.entry.step} and "
                    f"{step.entry.step}"
                )
            steps.append(step)
            bar.update()
    if weights_hash(final) != weights_id:
        raise PrismaError(f"expected the final weights of {run} to be those of {folder.name}; found others")
    entries = [step.entry for step in steps]
    record = Record(repo, recipe, read_results(run), read_all_metrics(run, entries[-1].step), entries)
    final_checkpoint = read_checkpoint(run)
    sent = tuple(File.of(name, run / name) for name in final_files(run))
    expect_as_finished(run, recipe, {name: file.sha256 for name, file in _files_of_run(steps, sent)})
    mechanism = own_mechanism(run)
    card = with_section(with_prose(render(record, final_checkpoint), own_prose(run)), section_of(mechanism))
    beside = own_files(run, mechanism) if mechanism else ()
    for file in beside:
        expect_no_link(run, file.name)
    return Plan(run_id, tuple(steps), (*sent, *beside), record, final_checkpoint, card)


def expect_no_link(run: Path, name: str, what: str = "run") -> None:
    """Raise PrismaError if a file of a run, or a folder on the way to it, is a link: it may lead to what is private."""
    path = run
    for part in Path(name).parts:
        path = path / part
        if path.is_symlink():
            raise PrismaError(
                f"expected {path.relative_to(run)} of the {what} {run} to be no link; found one to "
                f"{shown(str(path.readlink()))}: only the {what}'s own files are published"
            )


def _files_of_run(steps: list[Step], sent: tuple[File, ...]) -> Iterator[tuple[str, File]]:
    """The files that will be published and that training wrote, by their names in the run."""
    for step in steps:
        yield from ((f"{CHECKPOINTS}/{step.label}/{file.name}", file) for file in step.commit.files)
    yield from ((file.name, file) for file in sent)
