"""`prisma.sparse.latents`: what each latent of a coder is active on, and what it does, in one pass over a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from prisma.analysis.class_space.class_embeddings import class_embeddings, has_class_embeddings
from prisma.analysis.result import Result
from prisma.config import ViTConfig
from prisma.data.pictures import Pictures
from prisma.errors import PrismaError
from prisma.fields import conform
from prisma.plain import uncompiled
from prisma.runs import Model
from prisma.sites import RESIDUAL, axes_of
from prisma.sparse.activations import Run, Source, bare, token_places
from prisma.sparse.belonging import expect_trained_on
from prisma.sparse.coders import Coder, unit
from prisma.sparse.effects import Effects
from prisma.sparse.inputs import read_by, source_for, tokens_of
from prisma.sparse.strengths import Strengths
from prisma.sparse.strongest import Strongest

CODE_BYTES = 128 * 2**20
"""The memory for the codes of the images that are looked at together."""
NEAREST = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Latents(Result):
    """What the latents of a coder are active on, and what they do.

    Attributes:
        density: [latent], the share of tokens on which it is active; 0 is dead on this data set.
        image, strength: [latent, rank], the images in which it is most active, and how active at their strongest token;
            -1 and 0 where it is active in fewer images.
        maps: [latent, rank, token], how active at every token of these images: which patches it fires on.
        histogram, range: [latent, bin] and [latent], how many tokens have each strength, in equal bins from 0 to
            `range`; tokens on which it is not active are not counted.
        near, near_cosine: [latent, neighbour], the latents whose decoder directions are most alike, and their cosines.
        effect: [latent, output], what it adds to each logit (to each feature, of a model without classes): the model
            as it is, minus the model with the latent ablated at every token, the mean over its strongest images; 0
            of a dead latent. None for crosscoders, which no single site can be edited by.
        classes: [latent, class], the cosine of its decoder direction with the direction of each class, or of each
            prompt of a CLIP (`class_embeddings`): what it would add to the logits if no block came after. None where
            there are no such directions: another site than the residual stream, no classes, attention pooling.

    `effect` is what happens; `classes` is only what the direction looks like, and can say something else where blocks
    come between.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "density": ("latent",),
        "image": ("latent", "rank"),
        "strength": ("latent", "rank"),
        "maps": ("latent", "rank", "token"),
        "histogram": ("latent", "bin"),
        "range": ("latent",),
        "near": ("latent", "neighbour"),
        "near_cosine": ("latent", "neighbour"),
        "effect": ("latent", "output"),
        "classes": ("latent", "class"),
    }

    density: Tensor
    image: Tensor
    strength: Tensor
    maps: Tensor
    histogram: Tensor
    range: Tensor
    near: Tensor
    near_cosine: Tensor
    effect: Tensor | None = None
    classes: Tensor | None = None

    @property
    def dead(self) -> Tensor:
        """[latent], bool: active on no token of the data set."""
        return self.density == 0

    @property
    def effect_size(self) -> Tensor | None:
        """[latent]: the largest change of one output, by which latents are sorted; None without effects."""
        return None if self.effect is None else self.effect.abs().amax(1)

    def report(self, classes: Sequence[str] = ()) -> str:
        """How many latents are dead, and those that change the outputs most."""
        m, dead = len(self.density), int(self.dead.sum())
        said = f"{m - dead:,} of {m:,} latents are active on {self.metadata['images']:,} images; {dead:,} dead."
        if self.effect is None:
            return said
        size = self.effect_size
        assert size is not None
        rows = []
        for latent in size.topk(min(5, m)).indices.tolist():
            output = int(self.effect[latent].abs().argmax())
            name = classes[output] if output < len(classes) else f"output {output}"
            rows.append(f"latent {latent} adds {self.effect[latent, output]:+.3f} to {name}")
        return f"{said} The largest effects: {'; '.join(rows)}."


@torch.inference_mode(False)
@torch.no_grad()
def latents(
    coder: Coder,
    model: Model | Mapping[str, Model],
    images: Tensor | Pictures,
    *,
    tokens: str | Sequence[str] | None = None,
    top: int = 9,
    effect_images: int = 3,
    batch: int | None = None,
    other_model: bool = False,
) -> Latents:
    """What is each latent of a coder active on, and what does it do to the model's answers?

    Look at the images and maps first, then at `effect`; a latent with clear images and no effect is read by nothing,
    or by parts of the model that its images do not need.

    Args:
        coder: a coder of this model.
        images: normalised, [n, channel, height, width]; or pictures, which are read a few at a time.
        tokens: which tokens; None: those with which the coder was trained, else all.
        top: images that are kept of each latent.
        effect_images: the strongest images of each latent on which its effect is measured; 0: none is.
        batch: images in one pass of the model.
        other_model: take a model with other weights than the coder was trained on.

    Raises:
        PrismaError: a coder of another model, width or site, images or tokens that the model does not have, or
            activations that are not finite.
    """
    if conform("effect_images", effect_images, int) < 0:
        raise PrismaError(f"expected effect_images to be 0 or more; found {effect_images}")
    expect_trained_on(coder, model, other_model)
    source, c = source_for(coder, model, images, tokens, batch), coder.config
    found, strengths, active = _streamed(coder, source, top)
    near, cosine = nearest(coder)
    effect = None
    if effect_images and len(c.sites) == 1 and not isinstance(model, Mapping):
        at = token_places(model, c.sites[0], tokens_of(coder, tokens))
        run = Effects(coder, uncompiled(model), images, at, batch)
        effect = run.of(found.image[:, :effect_images], found.maps[:, :effect_images])
    return Latents(
        metadata=_metadata(coder, source, effect_images),
        density=active / (len(source) * len(source.roles)),
        image=found.image,
        strength=found.strength,
        maps=found.maps,
        histogram=strengths.counts,
        range=strengths.range,
        near=near,
        near_cosine=cosine,
        effect=effect,
        classes=None if isinstance(model, Mapping) else class_cosines(coder, model),
    )


def _streamed(coder: Coder, source: Source, top: int) -> tuple[Strongest, Strengths, Tensor]:
    """The strongest images of each latent, its strengths, and on how many tokens it is active."""
    m, tokens, device = coder.config.width, len(source.roles), coder.W_enc.device
    found = Strongest(m, min(conform("top", top, int), len(source)), tokens, device=device)
    strengths, active = Strengths(m, device=device), torch.zeros(m, dtype=torch.float64, device=device)
    size = max(min(CODE_BYTES // (tokens * m * 4), 64), 1)
    for start in range(0, len(source), size):
        rows = range(start, min(start + size, len(source)))
        acts = source.read(rows)
        z = coder.encode(read_by(coder, acts))
        active += (z != 0).sum((0, 1), dtype=torch.float64)
        found.add(z)
        strengths.add(z.flatten(0, 1))
    return found, strengths, active


def _metadata(coder: Coder, source: Run, effect_images: int) -> dict[str, Any]:
    c, roles = coder.config, source.roles
    prefix = [name for name in roles if name in ("class", "registers")]
    model = next(iter(source.models.values()))
    grid = list(model.config.grid) if isinstance(model.config, ViTConfig) and "patches" in roles else []
    return {
        "analysis": "latents", "kind": c.kind, "site": coder.site, "target": c.target, "width": c.width, "k": c.k,
        "images": len(source), "tokens": len(source) * len(roles), "prefix": prefix, "grid": grid,
        "effect_images": effect_images, "classes": getattr(model.config, "n_classes", 0),
    }  # fmt: skip


def nearest(coder: Coder, n: int = NEAREST) -> tuple[Tensor, Tensor]:
    """([latent, n], [latent, n]): the latents with the most similar decoder directions, and their cosines."""
    rows = unit(coder.W_dec.detach().float())
    n = min(n, len(rows) - 1)
    indices, cosines = [], []
    for start in range(0, len(rows), 1024):
        table = rows[start : start + 1024] @ rows.T
        table[torch.arange(len(table)), torch.arange(start, start + len(table))] = -torch.inf
        best = table.topk(n, dim=1)
        indices.append(best.indices)
        cosines.append(best.values)
    return torch.cat(indices), torch.cat(cosines)


def class_cosines(coder: Coder, model: Model) -> Tensor | None:
    """[latent, class]: the cosine of each decoder direction with the direction of each class; None without these."""
    site = bare(coder.config.target or coder.site)
    if len(coder.config.sites) > 1 or not isinstance(model.config, ViTConfig) or axes_of(site) != RESIDUAL:
        return None
    if not has_class_embeddings(model):
        return None
    classes = class_embeddings(model).to(coder.W_dec.device)
    if classes.shape[1] != coder.W_dec.shape[1]:
        return None
    return unit(coder.W_dec.detach().float()) @ unit(classes.float()).T
