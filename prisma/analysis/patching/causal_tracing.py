"""Causal tracing: at which layer and token does a model hold what it knows of an object?

Three runs. Clean; corrupt, in which noise is added to the embeddings of the object's patches; and restored, which is
the corrupt run but for some states, which are as in the clean run:

    total effect     TE = metric(clean) - metric(corrupt)
    indirect effect  IE[layer, tokens] = metric(restored) - metric(corrupt)        means over draws of the noise

Restored are the states of a role of tokens (or of each token) at one site, in a window of layers around `layer`. With
`sever`, the later outputs of all MLPs (or attentions) at those tokens are held at their corrupt values, which shows
what the effect is without that module.

Source: Meng et al. 2202.05262 (ROME), of subjects in prompts; here of objects in images.

Shapes: B image, S sample of noise, R row (a sample of an image), U unit, T token (prefix first), P patch, M d_model,
C class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.analysis.patching.sweeping import attention_stream
from prisma.analysis.result import PairedEffect
from prisma.batching import inputs_per_pass, measure_rows
from prisma.config import ViTConfig
from prisma.edits import Add, Set
from prisma.errors import PrismaError
from prisma.metrics import Metric, Probability, measure
from prisma.runs import finish, record, resume, sites_of_every_block
from prisma.sites import Tap
from prisma.vit import ViT

RESTORED: Mapping[str, str | None] = {
    "resid_post": "mlp_out",
    "attn_out": "attn_out",
    "mlp_out": "mlp_out",
    "time_out": None,
}
"""Site that can be restored -> the site of its block that a restored run continues from; None for the whole block."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CausalTracing(PairedEffect):
    """Indirect effects; `metadata["units"]` has the names of the roles."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effect": ("layer", "{axis}"),
        "stderr": ("layer", "{axis}"),
        "indirect": ("image", "layer", "{axis}"),
        "clean": ("image",),
        "corrupt": ("image",),
    }

    indirect: Tensor  # IE of each image, mean over samples

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"role": self.metadata["units"]}

    @property
    def per_image(self) -> Tensor:
        return self.indirect

    @property
    def changed_run(self) -> Tensor:
        return self.corrupt


@torch.no_grad()
def causal_tracing(
    model: ViT,
    images: Tensor,
    coverage: Tensor,
    *,
    site: str = "resid_post",
    axis: str = "role",
    window: int = 1,
    sever: str | None = None,
    metric: Metric | None = None,
    noise: float = 3.0,
    samples: int = 10,
    seed: int = 0,
    scale: float | None = None,
    batch: int | None = None,
) -> CausalTracing:
    """Restore the states of each role of tokens (or of each token) in each layer of runs with a corrupt object.

    Args:
        images: [image, channel, (frame,) height, width]: those that the model answers rightly, as a rule.
        coverage: [image, patch] or [image, row, column], boolean or a share: patches above 0 are the object.
        site: what is restored, "resid_post", "attn_out", "mlp_out", or "time_out" of divided attention.
        axis: "role" restores all tokens of a role at once (object, class, registers, context: the other patches; those
            that this model has), "token" one token at a time.
        window: how many layers are restored at once: from `layer - window // 2` on, those that exist.
        sever: hold "mlp_out", "attn_out" or "time_out" of those tokens at its corrupt value from the window on.
        metric: logits [image, class] -> a number per image; default: the probability of the clean run's answer. It sees
            all images in order, those that are not at work in their clean run.
        noise, scale: the noise's standard deviation is noise times scale; by default, `embedding_scale` of the images.
        samples: draws of the noise for each image, the same for every restored cell: image after image
            `torch.randn(samples, patch, d_model)` from one generator with `seed`, on the CPU in float32.
        batch: at most so many runs in one pass, but the samples of an image are always together; default: as `patch`.

    Raises:
        PrismaError: coverage of another form, an image without object, an option that is none of those above, a site
            that this model does not have, or a model without classes and no metric.
    """
    sites = _expect_options(model, site, axis, window, sever, metric, noise, samples)
    object_BP = _object(images, coverage, model.config)
    units, masks_BUT = _units(object_BP, model.config, axis)
    size = inputs_per_pass(model, batch)
    clean_BC = torch.cat([model(some) for some in images.split(size)])
    metric = Probability(clean_BC.argmax(-1)) if metric is None else metric
    sigma = noise * (embedding_scale(model, images, batch=size) if scale is None else scale)
    generator, found = torch.Generator().manual_seed(seed), []
    for rows in torch.arange(len(images)).split(max(size // samples, 1)):
        shape = (samples, model.config.n_patches, model.config.d_model)
        noise_RPM = sigma * torch.cat([torch.randn(shape, generator=generator) for _ in rows]).to(images)
        cells = _Cells(model, images[rows], object_BP[rows], noise_RPM, masks_BUT[rows], sites, sever, size)
        found.append(_measured(cells.logits(window), metric, clean_BC, rows, samples))
    values = torch.cat(found)
    return CausalTracing(
        metadata={
            "analysis": "causal_tracing", "site": site, "axis": axis, "units": units, "window": window, "sever": sever,
            "noise": noise, "sigma": sigma, "samples": samples, "seed": seed, "images": len(images),
        },
        indirect=(values[:, 1:] - values[:, :1]).unflatten(1, (len(sites), -1)),
        clean=measure(metric, clean_BC),
        corrupt=values[:, 0],
    )  # fmt: skip


@torch.no_grad()
def embedding_scale(model: ViT, images: Tensor, *, batch: int = 64) -> float:
    """The standard deviation of all numbers in the patch embeddings of some images."""
    n, total, squares = 0, 0.0, 0.0
    for some in images.split(batch):
        x = record(model, some, "embed", stop=True)[1]["embed"][:, model.config.n_prefix :].double()
        n, total, squares = n + x.numel(), total + x.sum().item(), squares + (x**2).sum().item()
    return float((squares / n - (total / n) ** 2) ** 0.5)


class _Cells:
    """Some images, S corrupt runs of each (the rows), and which of their states are restored."""

    def __init__(
        self,
        model: ViT,
        images: Tensor,
        object_BP: Tensor,
        noise_RPM: Tensor,
        masks_BUT: Tensor,
        sites: Sequence[str],
        sever: str | None,
        size: int,
    ) -> None:
        self.model, self.sites, self.masks_BUT, self.size = model, sites, masks_BUT, size
        self.samples = len(noise_RPM) // len(images)
        self.clean = record(model, images, sites, stop=True)[1]
        self.images = images.repeat_interleave(self.samples, 0)
        noise_RPM = noise_RPM * object_BP.repeat_interleave(self.samples, 0)[..., None]
        noise_RTM = F.pad(noise_RPM, (0, 0, model.config.n_prefix, 0))
        self.x_RTM = model.embed(self.images, Tap(edit={"embed": (Add(noise_RTM),)}))
        self.severed = Tap([] if sever is None else sites_of_every_block(model, sever))
        if self.severed.read:
            model.encode(self.x_RTM, tap=self.severed)
        self.resumed = RESTORED[sites[0].removeprefix("blocks.0.")]
        if self.resumed == "mlp_out" and not model.config.d_mlp:
            self.resumed = "resid_mid"

    def logits(self, window: int) -> Tensor:
        """Logits [1 + layer * unit, row, class] of the corrupt runs, and of those with each cell restored."""
        layers = range(len(self.sites))
        spans = {
            layer: range(max(layer - window // 2, 0), min(layer + (window + 1) // 2, len(layers))) for layer in layers
        }
        x_RTM, logits = self.x_RTM, {}
        for first in layers:
            corrupt = self._corrupt_sites(first)
            after_RTM = self.model.encode(x_RTM, start=first, stop=first + 1, tap=corrupt)
            for layer in (layer for layer, span in spans.items() if span.start == first):
                logits[layer] = self._restored(x_RTM, spans[layer], corrupt.tensors)
            x_RTM = after_RTM
        corrupt_RC = finish(self.model, x_RTM, self.images, start=len(layers))
        return torch.cat([corrupt_RC[None], *(logits[layer] for layer in layers)])

    def _corrupt_sites(self, layer: int) -> Tap:
        """A tap that reads what the restored runs that start in this layer share with the corrupt run."""
        if self.resumed is None:
            return Tap()
        block = f"blocks.{layer}."
        return Tap({attention_stream(self.model, layer), f"{block}resid_mid", block + self.resumed})

    def _restored(self, x_RTM: Tensor, span: range, corrupt: Mapping[str, Tensor]) -> Tensor:
        """Logits [unit, row, class] of the runs in which each unit's tokens have their clean states in some layers."""
        units, rows = self.masks_BUT.shape[1], len(x_RTM)
        logits = []
        for cells in torch.arange(units * rows, device=x_RTM.device).split(self.size):
            unit, row = cells // rows, cells % rows
            image = row // self.samples
            mask = self.masks_BUT[image, unit][..., None]
            edit: dict[str, tuple[Any, ...]] = {
                site: (Set(self.clean[site][image]).where(mask),) for site in self.sites[span.start : span.stop]
            }
            for site, value in self.severed.tensors.items():
                if int(site.split(".")[1]) >= span.start:
                    edit[site] = (Set(value[row]).where(mask),)
            logits.append(self._continued(x_RTM, span.start, corrupt, row, Tap(edit=edit)))
        return torch.cat(logits).unflatten(0, (units, rows))

    def _continued(self, x_RTM: Tensor, layer: int, corrupt: Mapping[str, Tensor], row: Tensor, tap: Tap) -> Tensor:
        """Logits [row, class] of runs with edits from a layer on; what comes before the edits is not computed again."""
        images = self.images[row]
        if self.resumed is None:
            return finish(self.model, x_RTM[row], images, start=layer, tap=tap)
        block = f"blocks.{layer}."
        sites = (block + self.resumed, attention_stream(self.model, layer), f"{block}resid_mid")
        value, stream, middle = (corrupt[site][row] for site in sites)
        return resume(self.model, images, layer, self.resumed, value, stream, middle, tap)


def _measured(logits_NRC: Tensor, metric: Metric, clean_BC: Tensor, rows: Tensor, samples: int) -> Tensor:
    """The metric [image, run], mean over samples, of some of the images; the others answer as in the clean run."""
    values = []
    for of_run in logits_NRC.unflatten(1, (-1, samples)):
        of_samples = [measure_rows(metric, x, rows, len(clean_BC), clean_BC) for x in of_run.unbind(1)]
        values.append(torch.stack(of_samples).mean(0))
    return torch.stack(values, dim=1)


def _object(images: Tensor, coverage: Tensor, config: ViTConfig) -> Tensor:
    """[image, patch], boolean: the object's patches."""
    share_BP = coverage.flatten(1)
    if not len(images) or share_BP.shape != (len(images), config.n_patches):
        raise PrismaError(
            f"expected images and the coverage of their patches [{len(images)}, {config.n_patches}]; "
            f"found {list(coverage.shape)}"
        )
    if not ((share_BP >= 0) & (share_BP <= 1)).all():
        raise PrismaError("coverage is the share of each patch that is object, from 0 to 1; found other numbers")
    object_BP = (share_BP > 0).to(images.device)
    if empty := (~object_BP.any(1)).nonzero().flatten().tolist():
        raise PrismaError(f"causal tracing corrupts an object in every image; found none in image {empty[0]}")
    return object_BP


def _units(object_BP: Tensor, config: ViTConfig, axis: str) -> tuple[list[str], Tensor]:
    """Names, and masks [image, unit, token], of what is restored together."""
    if axis == "token":
        each_TT = torch.eye(config.n_tokens, dtype=torch.bool, device=object_BP.device)
        return [], each_TT.expand(len(object_BP), -1, -1)
    object_BT, tokens = F.pad(object_BP, (config.n_prefix, 0)), TokenGrid.of(config)
    of = {name: tokens.role(name).to(object_BT.device) for name in ("class", "registers", "patches")}
    prefix = {name: of[name].expand_as(object_BT) for name in ("class", "registers")}
    roles = {"object": object_BT, **prefix, "context": of["patches"] & ~object_BT}
    there = {name: mask for name, mask in roles.items() if mask.any()}
    return list(there), torch.stack(list(there.values()), dim=1)


def _expect_options(
    model: ViT,
    site: str,
    axis: str,
    window: int,
    sever: str | None,
    metric: Metric | None,
    noise: float,
    samples: int,
) -> list[str]:
    """The sites to restore, a layer each."""
    if site not in RESTORED or sever == site or sever not in (None, "attn_out", "mlp_out", "time_out"):
        raise PrismaError(
            f"expected a site of {', '.join(RESTORED)}, and another but resid_post to sever; "
            f"found {site!r} and sever={sever!r}"
        )
    if axis not in ("role", "token"):
        raise PrismaError(f"states are restored by role or token; found axis={axis!r}")
    if window < 1 or samples < 1 or not noise > 0:
        raise PrismaError(
            f"expected a window and samples of at least 1 and noise above 0; found {window}, {samples} and {noise}"
        )
    if metric is None and not model.config.n_classes:
        raise PrismaError("the probability of an answer needs a model with classes: found n_classes=0 and no metric")
    return sites_of_every_block(model, site)
