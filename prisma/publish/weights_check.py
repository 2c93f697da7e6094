"""Are the weights behind a label those of its step and run, by what they hold and by what they compute?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prisma.checkpoint import Checkpoint, read_checkpoint, read_tensors, weights_hash
from prisma.data.task import Task
from prisma.data.transform import Transform
from prisma.errors import shown
from prisma.fields import from_dict
from prisma.publish.findings import Finding, noted
from prisma.publish.main_files import Main
from prisma.publish.manifest import TOLERANCE, Entry, agrees, fingerprint
from prisma.repository import MAIN
from prisma.run_folder import METRICS, PROBE, RECIPE, revision_of, step_in
from prisma.train.config import TrainConfig
from prisma.train.evaluate import evaluate
from prisma.train.loop import EVALUATED
from prisma.train.order import batch
from prisma.train.probe import probe_images

CLOSE = 1e-4  # times the loss, at least 1: far above rounding in float32, below the change of a damaged weight
IMAGES = 2  # that may count otherwise where two logits are nearly equal


def header_problems(header: Mapping[str, str], step: int | None, run: str | None) -> Iterator[str]:
    """Whether the header of weights states another step or run. None: not known."""
    stated = header.get("step", "none")
    if step is not None and step_in(stated) != step:
        yield f"expected weights of {revision_of(step)}; found a header that states step {shown(stated)}"
    if run is not None and header.get("run") != run:
        yield f"expected weights of run {shown(run)}; found a header that states run {shown(header.get('run', 'none'))}"


@dataclass
class WeightsCheck:
    """Looks at the weights of one revision after the other, and then at which are equal.

    Args:
        images: the probe; None if it cannot be read.
        losses: whether to compute again the losses and accuracies that the metrics state.
    """

    main: Main
    images: Tensor | None
    losses: bool
    _hashes: dict[str, str] = field(default_factory=dict, init=False)  # label -> hash of its weights

    def problems(self, label: str, folder: Path, step: int | None, entry: Entry | None) -> Iterator[str]:
        """What is wrong with the weights in a folder.

        Args:
            step: what the header must state; None if it is not known.
            entry: of the manifest.

        Raises:
            PrismaError: the folder holds no whole checkpoint with finite weights.
        """
        checkpoint = read_checkpoint(folder)
        yield from header_problems(checkpoint.header, step, self.main.manifest.run if self.main.manifest else None)
        self._hashes[label] = weights_hash(checkpoint.model.state_dict())
        if self.losses and step is not None:
            for split in ("test", "train") if label == MAIN else ("test",):
                yield from self._loss_problems(checkpoint, step, split)
            yield from self._batch_problems(checkpoint, step)
        if entry and self.images is not None and not agrees(fingerprint(checkpoint, self.images), entry.fingerprint):
            yield f"expected the manifest's logits on the probe images within {TOLERANCE:g}; found others"

    def equal(self, last: str | None) -> Iterator[Finding]:
        """Which of the revisions that were looked at serve equal weights though they must not, or must and do not.

        Args:
            last: the label of the last step, whose weights `main` must serve.
        """
        of_main, labels = self._hashes.pop(MAIN, None), dict[str, list[str]]()
        for label, found in self._hashes.items():
            labels.setdefault(found, []).append(label)
        for same in labels.values():
            if last in same:
                yield from (
                    Finding(label, f"expected weights of its own; found those of {last}, the last step")
                    for label in same
                    if label != last
                )
            else:
                problem = f"expected different weights in each revision; found the same as in {same[0]}"
                yield from (Finding(label, problem) for label in same[1:])
        if of_main is not None and last in self._hashes and self._hashes[last] != of_main:
            yield Finding(MAIN, f"expected the weights of {last}; found those of {labels.get(of_main, ['no step'])[0]}")

    def _loss_problems(self, checkpoint: Checkpoint, step: int, split: str) -> Iterator[str]:
        """Whether loss and accuracy on a split are those of `metrics.jsonl`, where the task can be built."""
        line, data = self.main.line(step), self.main.task
        names = (f"{split}_loss", f"{split}_accuracy")
        if data is None or not {*names} <= line.keys():
            return
        images, labels = data.splits[split].images[:EVALUATED], data.splits[split].labels[:EVALUATED]
        found = evaluate(checkpoint.model, Transform.from_dict(checkpoint.transform).normalise(images), labels)
        limits = (CLOSE * max(1.0, abs(found[0])), IMAGES / len(labels))
        for name, value, limit in zip(names, found, limits, strict=True):
            if not _is_close(line[name], value, limit):
                yield f"expected {name} {shown(line[name])}, as in {METRICS}; found weights that have {value:.6g}"

    def _batch_problems(self, checkpoint: Checkpoint, step: int) -> Iterator[str]:
        """Whether the loss on the batch of a step, which is built again from the recipe, is that of `metrics.jsonl`."""
        line, data = self.main.line(step), self.main.task
        if data is None or self.main.recipe is None or "loss" not in line:
            return
        training = from_dict(TrainConfig, self.main.recipe.get("training"), f"training of {RECIPE}")
        transform = Transform.from_dict(checkpoint.transform)
        loss, _ = evaluate(checkpoint.model, *batch(data.splits["train"], transform, training, step))
        if not _is_close(line["loss"], loss, CLOSE * max(1.0, abs(loss))):
            yield f"expected loss {shown(line['loss'])} on the batch of its step, as in {METRICS}; found {loss:.6g}"


def _is_close(stated: Any, found: float, limit: float) -> bool:
    return isinstance(stated, int | float) and abs(stated - found) <= limit


def probe_of(path: Path, data: Task | None, problems: list[str]) -> Tensor | None:
    """The images of a probe file, compared with those of the task, if it is given. None if they cannot be read."""
    with noted(problems, path.parent):
        tensors, _ = read_tensors(path)
        if "images" not in tensors or not isinstance(tensors["images"], torch.Tensor):
            problems.append(f"expected images and labels in {PROBE}; found {shown(', '.join(tensors) or 'none')}")
            return None
        if data is not None:
            probe = probe_images(data.splits["test"])
            if weights_hash(tensors) != weights_hash({"images": probe.images, "labels": probe.labels}):
                problems.append(f"expected the probe images of the task {data.name} in {PROBE}; found others")
        return tensors["images"]
    return None
