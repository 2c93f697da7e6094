"""Are the weights behind a label those of its step and run, by what they hold and by what they compute?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from prisma.checkpoint import read_checkpoint, read_tensors, weights_hash
from prisma.data.task import Task
from prisma.errors import shown
from prisma.publish.findings import Finding, noted
from prisma.publish.main_files import Main
from prisma.publish.manifest import TOLERANCE, Entry, agrees, fingerprint
from prisma.publish.recomputing import batch_problems, loss_problems
from prisma.repository import MAIN
from prisma.run_folder import PROBE, revision_of, step_in
from prisma.train.config import objective_in
from prisma.train.probe import probe_images


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
        data, recipe = self.main.task, self.main.recipe
        if self.losses and step is not None and data is not None and recipe is not None:
            line, objective = self.main.line(step), objective_in(recipe, checkpoint.model.config, data)
            for split in ("test", "train") if label == MAIN else ("test",):
                yield from loss_problems(checkpoint, line, data, split, objective)
            yield from batch_problems(checkpoint, line, data, recipe, step)
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
