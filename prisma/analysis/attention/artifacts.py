"""Artifact tokens and attention sinks: patches with an unusually large norm, and tokens that receive attention always.

A patch is an artifact in a stage of the residual stream when its norm is above a cutoff: `factor` times the median norm
of all patches of all images in that stage, or a fixed number. (Darcet et al. cut at 150, about three times the norm of
ordinary patches in their DINOv2.) A sink is a token that receives more than `above` of a head's attention, on average
over queries.

Sources: Darcet et al. 2309.16588 (artifacts, registers); Xiao et al. 2309.17453 and Gu et al. 2410.10781 (sinks).

Shapes: B image, S stage (0 is the embedding, s is after block s - 1), L layer, H head, T token, Q query, K key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.attention.token_grid import TokenGrid, image_passes
from prisma.analysis.border import guarded, record
from prisma.analysis.result import Result
from prisma.errors import PrismaError
from prisma.view.figures.norms import draw_norms
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class Artifacts(Result):
    """Which patches have an outlying norm, and how much attention each token receives.

    `share` near 0 means that the model has no artifacts in that stage; a few percent of patches with several times the
    median norm, in the middle and late stages, is what large models without registers show. `attention_share` says
    whether heads spend their attention on them. The median is over all images of the result, so artifacts change when
    images are added.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "share": ("stage",),
        "norms": ("image", "stage", "token"),
        "received": ("image", "layer", "head", "token"),
    }
    norms: Tensor  # of the residual stream, in its units
    received: Tensor  # mean over queries of the attention that a token receives; sums to 1 over tokens

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
        """[image, stage, token], boolean: patches above the cutoff. A prefix token is never an artifact."""
        patch_T = self.tokens.role("patches").to(self.norms.device)
        return (self.norms > self.cutoffs[:, None]) & patch_T

    @property
    def share(self) -> Tensor:
        """[stage]: the share of patches that are artifacts."""
        return self.artifacts.sum((0, 2)) / (len(self.norms) * self.tokens.n_patches)

    @property
    def attention_share(self) -> dict[str, Tensor]:
        """How each head's attention is split: `class`, `registers`, `artifacts`, other `patches` -> [layer, head].

        Means over images; the four sum to 1. Block l attends to the tokens of stage l, so artifacts are those of that
        stage.
        """
        artifact_BLT, roles = self.artifacts[:, : self.received.shape[1]], self.tokens
        members = {
            "class": roles.role("class").to(artifact_BLT.device).expand_as(artifact_BLT),
            "registers": roles.role("registers").to(artifact_BLT.device).expand_as(artifact_BLT),
            "artifacts": artifact_BLT,
            "patches": roles.role("patches").to(artifact_BLT.device) & ~artifact_BLT,
        }
        return {name: (self.received * mask[:, :, None]).sum(-1).mean(0) for name, mask in members.items()}

    def sinks(self, above: float = 0.3) -> Tensor:
        """[layer, head, token]: the share of images in which a token receives more than `above` of the attention.

        1 is a sink in every image; 0 is a token that never is one.
        """
        return (self.received > above).to(self.received.dtype).mean(0)

    def plot(self, array: str | None = None) -> "Figure":
        """By default the norms of all tokens by stage, with the cutoff; `"share"` draws the share of artifacts."""
        if array is not None:
            return super().plot(array)
        roles = {"class token": self.tokens.role("class"), "registers": self.tokens.role("registers")}
        prefix = {label: self.arrays["norms"][:, :, role_T] for label, role_T in roles.items() if role_T.any()}
        patches = self.arrays["norms"][:, :, self.tokens.n_prefix :]
        title = f"{self.metadata['analysis']}: norms of tokens"
        return draw_norms(patches, self.cutoffs, prefix, title=title)


@guarded
@torch.no_grad()
def artifacts(
    model: ViT, images: Tensor, *, factor: float = 3.0, cutoff: float | None = None, batch: int | None = None
) -> Artifacts:
    """Which patches have an outlying norm in each stage, and how much attention does each token receive?

    `share` is the share of patches above the cutoff: 0 where there are none. `received` is the mean attention that a
    token receives from all queries: 1 / tokens for a head without preference, near 1 for a sink. In a model with
    divided attention, this is the attention over space.

    Args:
        images: [image, channel, (frame,) height, width].
        factor: a patch is an artifact above this multiple of the median norm of the patches in its stage.
        cutoff: if given, a patch is an artifact above this norm, in every stage; `factor` is then not used.
        batch: images in one pass; by default as many as have patterns of about 256 MiB.

    Returns:
        `norms` [image, stage, token], `received` [image, layer, head, token], and what follows from them: `cutoffs`
        [stage], `artifacts` [image, stage, token], `share` [stage], `attention_share` {name: [layer, head]}, `sinks()`
        [layer, head, token]. Norms are in units of the residual stream.

    Raises:
        PrismaError: the images do not fit the model, the model has no layers, or the cutoff is not above 0.

    Source: Darcet et al. 2309.16588.
    """
    config, used = model.config, factor if cutoff is None else cutoff
    if not used > 0:
        raise PrismaError(f"expected a cutoff to be above 0; found {used}")
    if not config.n_layers:
        raise PrismaError("expected a model with layers, whose patches can become artifacts; found n_layers=0")
    sites = ["blocks.0.resid_pre", "blocks.*.resid_post", "blocks.*.attn.pattern"]
    norms: list[Tensor] = []
    received: list[Tensor] = []
    for some in image_passes(model, images, batch):
        _, acts = record(model, some, sites, stop=True)
        stages = [acts["blocks.0.resid_pre"], *acts.stack("resid_post")]
        exact = torch.promote_types(stages[0].dtype, torch.float32)
        norms.append(torch.stack([x.to(exact).norm(dim=-1) for x in stages], dim=1))
        received.append(acts.stack("attn.pattern").mean(-2).transpose(0, 1))
    tokens = TokenGrid.of(config)
    metadata = {
        "analysis": "artifacts",
        "factor": factor,
        "cutoff": cutoff,
        "tokens": [int(tokens.class_token), tokens.registers, *tokens.grid],
    }
    return Artifacts(metadata=metadata, norms=torch.cat(norms), received=torch.cat(received))
