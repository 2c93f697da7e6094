"""Artifact tokens and attention sinks: patches whose norm stands out, and tokens that take attention whatever is asked.

A patch is an artifact in a stage of the residual stream when its norm is above a cutoff: `factor` times the median norm
of all patches of all images in that stage, or a number given. (Darcet et al. cut at 150, about three times what the
patches of their DINOv2 have.) A sink is a token that gets more than `above` of a head's attention, on average over
queries.

Sources: Darcet et al. 2309.16588 (artifacts, registers); Xiao et al. 2309.17453 and Gu et al. 2410.10781 (sinks).

Shapes: B image, S stage (0 is the embedding, s is after block s - 1), L layer, H head, T token, Q query, K key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from prisma.analysis.attention.token_grid import TokenGrid, chunks
from prisma.analysis.result import Result
from prisma.errors import PrismaError
from prisma.runs import record
from prisma.view.figures.plots import STYLE
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class Artifacts(Result):
    """Norms and attention received. What counts as an artifact follows from all images together."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "share": ("stage",),
        "norms": ("image", "stage", "token"),
        "received": ("image", "layer", "head", "token"),
    }
    norms: Tensor  # of the residual stream, in its units
    received: Tensor  # mean over queries of the attention that a token is given; sums to 1 over tokens

    @property
    def tokens(self) -> TokenGrid:
        """Class token, registers and the grid of patches."""
        class_token, registers, *grid = self.metadata["tokens"]
        return TokenGrid(bool(class_token), registers, (grid[0], grid[1], grid[2]))

    @property
    def cutoffs(self) -> Tensor:
        """[stage]: the norm above which a patch is an artifact."""
        patches_SX = self.norms[:, :, self.tokens.n_prefix :].transpose(0, 1).flatten(1)
        if self.metadata["cutoff"] is not None:
            return torch.full_like(patches_SX[:, 0], self.metadata["cutoff"])
        return patches_SX.median(dim=1).values * self.metadata["factor"]

    @property
    def artifacts(self) -> Tensor:
        """[image, stage, token], boolean: patches above the cutoff. Prefix tokens are none."""
        patch_T = self.tokens.role("patches").to(self.norms.device)
        return (self.norms > self.cutoffs[:, None]) & patch_T

    @property
    def share(self) -> Tensor:
        """[stage]: the share of patches that are artifacts."""
        return self.artifacts.sum((0, 2)) / (len(self.norms) * self.tokens.n_patches)

    @property
    def taken(self) -> dict[str, Tensor]:
        """Who is given the attention: `class`, `registers`, `artifacts` and the other `patches` -> [layer, head].

        Means over images of shares that sum to 1. What block l attends to are the tokens of stage l.
        """
        artifact_BLT, roles = self.artifacts[:, : self.received.shape[1]], self.tokens
        who = {
            "class": roles.role("class").to(artifact_BLT.device).expand_as(artifact_BLT),
            "registers": roles.role("registers").to(artifact_BLT.device).expand_as(artifact_BLT),
            "artifacts": artifact_BLT,
            "patches": roles.role("patches").to(artifact_BLT.device) & ~artifact_BLT,
        }
        return {name: (self.received * mask[:, :, None]).sum(-1).mean(0) for name, mask in who.items()}

    def sinks(self, above: float = 0.3) -> Tensor:
        """[layer, head, token]: in what share of images a token is given more than `above` of the attention."""
        return (self.received > above).to(self.received.dtype).mean(0)

    def plot(self, array: str | None = None) -> "Figure":
        """By default the norms of all tokens by stage, against the cutoff; `"share"` draws the share of artifacts."""
        if array is not None:
            return super().plot(array)
        from matplotlib import rc_context
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        norms_BST, tokens = self.norms.detach().double().cpu(), self.tokens
        patches_SX = norms_BST[:, :, tokens.n_prefix :].transpose(0, 1).flatten(1).numpy()
        artifact_SX = patches_SX > self.cutoffs.cpu().numpy()[:, None]
        others_SX = np.where(artifact_SX & ~artifact_SX.all(1, keepdims=True), np.nan, patches_SX)
        stages, blue, red = range(len(patches_SX)), "#3b6ea5", "#d1495b"
        with rc_context(STYLE):
            figure = Figure(figsize=(7.2, 3.8), dpi=150, layout="constrained")
            panel = figure.subplots()
            for low, high, alpha, of in ((0.0, 1.0, 0.15, "other patches"), (0.05, 0.95, 0.3, "90 % of them")):
                ends = np.nanquantile(others_SX, (low, high), axis=1)
                panel.fill_between(stages, *ends, color=blue, alpha=alpha, linewidth=0, label=of)
            panel.plot(stages, np.median(patches_SX, axis=1), color=blue, label="median patch")
            for name, label, colour in (("class", "class token", "#2a9d5c"), ("registers", "registers", "#8e5bb5")):
                if (role_T := tokens.role(name)).any():
                    mean_S = norms_BST[:, :, role_T].mean((0, 2)).numpy()
                    panel.plot(stages, mean_S, color=colour, label=f"{label}, mean")
            panel.plot(
                np.nonzero(artifact_SX)[0], patches_SX[artifact_SX], ".", color=red, alpha=0.3, label="artifacts"
            )
            panel.plot(stages, self.cutoffs.cpu().numpy(), color=red, linestyle="--", label="cutoff")
            panel.set(xlabel="stage (0 is the embedding)", ylabel="norm of the residual stream", ylim=(0, None))
            panel.xaxis.set_major_locator(MaxNLocator(12, integer=True))
            figure.legend(loc="outside right upper", fontsize=8)
            figure.suptitle("artifacts: norms of tokens", x=0.01, ha="left", fontweight="bold", color="#1f2328")
        return figure


@torch.no_grad()
def artifacts(
    model: ViT, images: Tensor, *, factor: float = 3.0, cutoff: float | None = None, batch: int | None = None
) -> Artifacts:
    """Norms of all tokens in every stage, and the attention that each is given in every layer.

    Of divided attention, the attention over space.

    Args:
        images: [image, channel, (frame,) height, width].
        factor: an artifact's norm is so many times the median of the patches in its stage.
        cutoff: or is above this number, in every stage.
        batch: at most so many images in one pass; by default as many as have patterns of about 256 MiB.

    Returns:
        `norms` [image, stage, token], `received` [image, layer, head, token]; and what follows from them: `cutoffs`,
        `artifacts`, `share`, `taken`, `sinks()`.

    Raises:
        PrismaError: the images do not fit, there are no layers, or the cutoff is not above 0.
    """
    config, used = model.config, factor if cutoff is None else cutoff
    if not used > 0:
        raise PrismaError(f"a cutoff must be above 0; found {used}")
    if not config.n_layers:
        raise PrismaError("artifacts are sought in the layers of a model; found n_layers=0")
    sites = ["blocks.0.resid_pre", "blocks.*.resid_post", "blocks.*.attn.pattern"]
    norms: list[Tensor] = []
    received: list[Tensor] = []
    for some in chunks(model, images, batch):
        _, acts = record(model, some, sites, stop=True)
        stages = [acts["blocks.0.resid_pre"], *acts.stack("resid_post")]
        exact = torch.promote_types(stages[0].dtype, torch.float32)
        norms.append(torch.stack([x.to(exact).norm(dim=-1) for x in stages], dim=1))
        received.append(acts.stack("attn.pattern").mean(-2).transpose(0, 1))
    tokens = TokenGrid.of(config)
    said = {
        "analysis": "artifacts",
        "factor": factor,
        "cutoff": cutoff,
        "tokens": [int(tokens.class_token), tokens.registers, *tokens.grid],
    }
    return Artifacts(metadata=said, norms=torch.cat(norms), received=torch.cat(received))
