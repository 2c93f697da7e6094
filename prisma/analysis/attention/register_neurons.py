"""Register neurons: the MLP neurons that answer at the patches which have an outlying norm, and may have made them so.

    score[l, j] = mean over images with artifacts of the mean over their artifacts of |mlp.post[l, j]|

An artifact is a patch whose norm in one stage of the residual stream is above a cutoff, as in `artifacts`. Neurons of
later blocks cannot have made it and are not scored. `elsewhere` is the same number at the other patches: a register
neuron has a large score and a small number elsewhere; one that is large everywhere says nothing about artifacts.

Source: Jiang et al. 2506.08010.

Shapes: B image, T token, P patch, L layer, N neuron.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.attention.artifacts import artifacts
from prisma.analysis.attention.token_grid import TokenGrid
from prisma.analysis.border import guarded, record
from prisma.analysis.result import Result
from prisma.batching import inputs_per_pass
from prisma.errors import PrismaError
from prisma.fields import conform
from prisma.numbers import exact
from prisma.view.figures.charts import draw_bars
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Neurons = tuple[tuple[int, int], ...]
"""Pairs of (layer, neuron)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RegisterNeurons(Result):
    """How strongly each neuron answers at artifacts, and elsewhere.

    Scores say where neurons answer, not what they cause: `test_time_registers` moves them and looks.
    `metadata["cutoff"]` is the norm above which a patch was an artifact, `metadata["stage"]` the stage, and
    `metadata["artifacts"]` the number of artifacts in `metadata["images"]` images.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "score": ("layer", "neuron"),
        "elsewhere": ("layer", "neuron"),
    }
    score: Tensor  # mean size of the activation at artifacts; layer 0 is the model's first
    elsewhere: Tensor  # the same at the other patches of the same images; 0 where all patches are artifacts

    def top(self, n: int = 10) -> Neurons:
        """The n neurons with the largest scores, as (layer, neuron), from the largest down.

        Raises:
            PrismaError: fewer than one neuron, or more than there are, or no whole number.
        """
        n = conform("n", n, int)
        if not 1 <= n <= self.score.numel():
            raise PrismaError(f"expected 1 to {self.score.numel()} neurons; found {n}")
        order = self.score.flatten().argsort(descending=True, stable=True)[:n].tolist()
        return tuple(divmod(i, self.score.shape[1]) for i in order)

    def plot(self, array: str | None = None) -> "Figure":
        """By default the ten largest scores, and what the same neurons are elsewhere."""
        if array is not None:
            return super().plot(array)
        top = self.top(min(10, self.score.numel()))
        rows = [(f"layer {layer}, neuron {neuron}{where}", values[layer, neuron]) for layer, neuron in top
                for where, values in (("", self.score), (", elsewhere", self.elsewhere))]  # fmt: skip
        title = "register neurons: mean size of the activation at artifacts, and elsewhere"
        return draw_bars(torch.stack([value for _, value in rows]), [name for name, _ in rows], title=title)


@guarded
@torch.no_grad()
def register_neurons(
    model: ViT,
    images: Tensor,
    *,
    stage: int | None = None,
    factor: float = 3.0,
    cutoff: float | None = None,
    batch: int | None = None,
) -> RegisterNeurons:
    """Which neurons answer at the patches whose norm is an outlier?

    Args:
        images: [image, channel, (frame,) height, width]; a few hundred.
        stage: where artifacts are looked for: stage s is after block s - 1; by default the last.
        factor: a patch is an artifact above this multiple of the median norm of the patches in that stage.
        cutoff: if given, a patch is an artifact above this norm; `factor` is then not used.
        batch: images in one pass.

    Returns:
        `score` and `elsewhere` [layer, neuron] for the blocks before the stage; `top(n)`.

    Raises:
        PrismaError: no such stage, a model without MLPs, or images in which no patch is above the cutoff.

    Source: Jiang et al. 2506.08010.
    """
    config = model.config
    if not config.n_layers or not config.d_mlp:
        raise PrismaError(
            f"expected a model whose blocks have MLPs; found {config.n_layers} block{'s' * (config.n_layers > 1)} with "
            f"{config.d_mlp} neurons each"
        )
    stage = config.n_layers if stage is None else stage
    if not 1 <= stage <= config.n_layers:
        raise PrismaError(f"expected a stage from 1 to {config.n_layers}, the number of blocks; found {stage}")
    found = artifacts(model, images, factor=factor, cutoff=cutoff, batch=batch)
    limit = found.cutoffs[stage].item()
    artifact_BP = found.artifacts[:, stage, found.tokens.n_prefix :]
    if not artifact_BP.any():
        largest = found.norms[:, stage, found.tokens.n_prefix :].max()
        raise PrismaError(
            f"expected patches whose norm after {stage} block{'s' * (stage > 1)} is above {limit:.3g}; found none in "
            f"{len(images)} images, whose largest has {largest:.3g}: the model has no artifacts there, or give a lower "
            f"factor"
        )
    rows, size = artifact_BP.any(1).nonzero()[:, 0], inputs_per_pass(model, batch)
    others = max(1, int((~artifact_BP[rows]).any(1).sum()))  # images that have other patches too
    at = elsewhere = exact(images.new_zeros(()))
    for some in rows.split(size):
        sizes_LBPN = _sizes(model, images[some], stage)
        at = at + _mean_at(sizes_LBPN, artifact_BP[some]) / len(rows)
        elsewhere = elsewhere + _mean_at(sizes_LBPN, ~artifact_BP[some]) / others
    return RegisterNeurons(
        metadata={
            "analysis": "register_neurons", "stage": stage, "cutoff": limit, "images": len(images),
            "artifacts": int(artifact_BP.sum()),
        },
        score=at,
        elsewhere=elsewhere,
    )  # fmt: skip


def _sizes(model: ViT, images: Tensor, stage: int) -> Tensor:
    sites = [f"blocks.{layer}.mlp.post" for layer in range(stage)]
    acts = record(model, images, sites, stop=True)[1]
    return exact(torch.stack([acts[site] for site in sites])[:, :, TokenGrid.of(model.config).n_prefix :].abs())


def _mean_at(sizes_LBPN: Tensor, chosen_BP: Tensor) -> Tensor:
    """[layer, neuron]: the sum over images of the mean over the chosen patches; an image without any adds nothing."""
    shares_BP = chosen_BP / chosen_BP.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("lbpn,bp->ln", sizes_LBPN, shares_BP.to(sizes_LBPN))
