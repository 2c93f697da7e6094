"""What a finished run becomes when it is published: one commit per checkpoint, and `main`. Nothing is written here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from prisma.checkpoint import CONFIG, WEIGHTS, Checkpoint, read_checkpoint, read_tensors
from prisma.errors import PrismaError
from prisma.files import read_json
from prisma.publish.card import Record, render
from prisma.publish.hub import Commit, File
from prisma.publish.manifest import Entry, fingerprint, revision_of, to_json, weights_hash
from prisma.repository import MAIN, MANIFEST, PROBE
from prisma.train.config import TrainConfig
from prisma.train.metrics_log import METRICS, read_metrics
from prisma.train.provenance import RECIPE
from prisma.train.run_folder import RESULTS
from prisma.train.schedule import checkpoint_steps

CARD = "README.md"
CURVES = tuple(f"curves/{name}.{kind}" for name in ("loss", "accuracy") for kind in ("png", "svg"))


@dataclass(frozen=True)
class Plan:
    """The commits of a run, by label: the steps in order, then `main`."""

    revisions: Mapping[str, Commit]
    card: str  # the text of README.md


def plan(run: Path, repo: str, *, progress: bool = False) -> Plan:
    """Read and check everything that publishing will send.

    Raises:
        PrismaError: the run is not finished, a file or a checkpoint of its schedule is absent or broken, weights are
            not finite, a checkpoint is not of the step or the run that it claims, two checkpoints hold the same
            weights, or the final weights are not the last.
    """
    _expect_finished(run)
    images = read_tensors(run / PROBE)[0].get("images", torch.empty(0))
    final, header = read_tensors(run / WEIGHTS)
    recipe = read_json(run / RECIPE)
    entries, revisions, seen = [], {}, dict[str, int]()
    for folder in tqdm(_step_folders(run, recipe), desc="checking", unit="checkpoint", disable=not progress):
        checkpoint = _read_step(run, folder, header.get("run"))
        step, weights_id = int(checkpoint.header["step"]), weights_hash(checkpoint.model.state_dict())
        if (twin := seen.setdefault(weights_id, step)) != step:
            raise PrismaError(f"expected different weights at every step of {run}, found the same at {twin} and {step}")
        weights = File.of(WEIGHTS, folder / WEIGHTS)
        revisions[folder.name] = commit = Commit((File.of(CONFIG, folder / CONFIG), weights))
        logits = fingerprint(checkpoint, images)
        entries.append(Entry(step, folder.name, commit.id, weights.sha256, weights.size, logits))
    if weights_hash(final) != weights_id:
        raise PrismaError(f"expected the final weights of {run} to be those of {folder.name}, found others")
    record = Record(repo, recipe, read_json(run / RESULTS), _metrics(run, entries[-1].step), entries)
    text = render(record, read_checkpoint(run))
    made = {CARD: text.encode(), MANIFEST: to_json(entries)}
    sent = {name: run / name for name in (CONFIG, WEIGHTS, METRICS, RECIPE, RESULTS, PROBE, *CURVES)}
    revisions[MAIN] = Commit(tuple(File.of(name, source) for name, source in (made | sent).items()))
    return Plan(revisions, text)


def _expect_finished(run: Path) -> None:
    if not run.is_dir():
        raise PrismaError(f"expected a run folder at {run}, found none; `prisma train` makes one")
    if not (run / RESULTS).is_file():
        raise PrismaError(
            f"expected a finished run at {run}, found no {RESULTS}; finish it with `prisma train --resume`"
        )
    for name in (CONFIG, WEIGHTS, METRICS, RECIPE, PROBE, *CURVES):
        if not (run / name).is_file():
            raise PrismaError(f"expected {name} in the run {run}, found no such file")


def _metrics(run: Path, last: int) -> list[dict[str, Any]]:
    lines = read_metrics(run / METRICS)
    if [line.get("step") for line in lines] != list(range(last + 1)):
        raise PrismaError(
            f"expected a line for every step from 0 to {last} in {run / METRICS}, found {len(lines)} lines"
        )
    return lines


def _step_folders(run: Path, recipe: Mapping[str, Any]) -> list[Path]:
    """Those of the run's schedule, in step order: no more, no fewer."""
    try:
        wanted = [revision_of(step) for step in checkpoint_steps(TrainConfig(**recipe["training"]))]
    except (KeyError, TypeError) as error:
        raise PrismaError(
            f"expected the training settings of a run in {run / RECIPE}, found others ({error})"
        ) from None
    found = {path.name for path in (run / "checkpoints").glob("step-*")}
    if odd := found.symmetric_difference(wanted):
        raise PrismaError(
            f"expected the {len(wanted)} checkpoints of its schedule in {run}, found {len(found)}: "
            f"{', '.join(sorted(odd))} {'too many' if odd <= found else 'missing'}"
        )
    return [run / "checkpoints" / name for name in wanted]


def _read_step(run: Path, folder: Path, run_id: str | None) -> Checkpoint:
    checkpoint = read_checkpoint(folder)
    header = checkpoint.header
    if not header.get("step", "").isdigit() or revision_of(int(header["step"])) != folder.name:
        raise PrismaError(f"expected weights of {folder.name} in {folder}, found those of step {header.get('step')}")
    if header.get("run") != run_id:
        raise PrismaError(f"expected weights of run {run_id} in {folder}, found those of run {header.get('run')}")
    if (folder / CONFIG).read_bytes() != (run / CONFIG).read_bytes():
        raise PrismaError(f"expected the same {CONFIG} in {folder} and {run}, found two")
    broken = [name for name, x in checkpoint.model.state_dict().items() if not x.isfinite().all()]
    if broken:
        raise PrismaError(f"expected finite weights in {folder}, found infinite ones or NaN in {', '.join(broken)}")
    return checkpoint
