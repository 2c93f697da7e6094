"""Causal tracing: in which layers and tokens does a model hold its information about an object?

Three runs are compared: the clean run; the corrupt run, in which noise is added to the embeddings of the object's
patches; and restored runs, which are the corrupt run with some states set to their values in the clean run:

    total effect     TE = metric(clean) - metric(corrupt)
    indirect effect  IE[layer, tokens] = metric(restored) - metric(corrupt)        means over draws of the noise

The restored states are those of a role of tokens (or of each token) at one site, in a window of layers around `layer`.
With `sever`, the later outputs of all MLPs (or attentions) at those tokens keep their corrupt values, which shows the
effect without that module.

Source: Meng et al. 2202.05262 (ROME), for subjects in prompts; here for objects in images.

Shapes: B image, S sample of noise, R row (a sample of an image), U unit, T token (prefix first), P patch, M d_model,
C class.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.analysis.border import guarded, record
from prisma.analysis.patching.restored_runs import RESTORED, RestoredRuns
from prisma.analysis.result import PairedEffect
from prisma.batching import inputs_per_pass, measure_rows
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.metrics import Metric, Probability, measure
from prisma.runs import sites_of_every_block
from prisma.vit import ViT


@dataclass(frozen=True, kw_only=True, eq=False)
class CausalTracing(PairedEffect):
    """Indirect effects of restoring each cell; `metadata["units"]` has the names of the roles.

    An effect close to `total` means that the restored states carry all the information about the object.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effect": ("layer", "{axis}"),
        "stderr": ("layer", "{axis}"),
        "indirect": ("image", "layer", "{axis}"),
        "clean": ("image",),
        "corrupt": ("image",),
    }

    indirect: Tensor  # [image, layer, unit]: IE, mean over samples of the noise

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"role": self.metadata["units"]}

    @property
    def per_image(self) -> Tensor:
        return self.indirect

    @property
    def changed_run(self) -> Tensor:
        return self.corrupt


@guarded
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
    """In which layers and tokens does a model hold its information about an object?

    The object's patches are corrupted with noise, and clean states are restored one layer and role at a time. `effect`
    is how much of the metric comes back: close to `total` where these tokens hold the information, else near zero.

    Args:
        images: [image, channel, (frame,) height, width], usually images that the model classifies correctly.
        coverage: [image, patch] or [image, row, column]: patches above 0 are the object.
        site: what is restored: "resid_post", "attn_out", "mlp_out", or in divided attention "time_out".
        axis: "role" restores all tokens of a role (object, class, registers, or context), "token" one token.
        window: how many layers are restored at once, from `layer - window // 2` on, as far as they exist.
        sever: keep "mlp_out", "attn_out" or "time_out" of those tokens at its corrupt value from the window on.
        metric: logits [image, class] -> one number per image; by default the probability of the class that the clean
            run predicts. It sees all images in order; images outside the current pass keep their clean logits.
        noise, scale: the standard deviation of the noise is noise times scale; by default `embedding_scale(images)`.
        samples, seed: draws of the noise per image, the same for every cell, from one generator on the CPU in float32.
        batch: runs per pass, though the samples of an image stay together; by default as many as fit in 256 MiB.

    Raises:
        PrismaError: the coverage does not fit, an image has no object, an option is unknown, or a metric is needed.
    """
    sites = _expect_options(model, site, axis, window, sever, metric, noise, samples)
    object_BP = _object(images, coverage, model.config)
    units, masks_BUT = _units(object_BP, model.config, axis)
    size = inputs_per_pass(model, batch)
    clean_BC = torch.cat([model(some) for some in images.split(size)])
    metric = Probability(clean_BC.argmax(-1)) if metric is None else metric
    sigma = noise * (embedding_scale(model, images, batch=size) if scale is None else scale)
    parts, draw = [], _noise(model.config, images, samples, seed)
    for rows in torch.arange(len(images)).split(max(size // samples, 1)):
        runs = RestoredRuns(
            model, images[rows], object_BP[rows], sigma * draw(len(rows)), masks_BUT[rows], sites, sever, size
        )
        parts.append(_measured(runs.logits(window), metric, clean_BC, rows, samples))
    values = torch.cat(parts)
    return CausalTracing(
        metadata={
            "analysis": "causal_tracing", "site": site, "axis": axis, "units": units, "window": window, "sever": sever,
            "noise": noise, "sigma": sigma, "samples": samples, "seed": seed, "images": len(images),
        },
        indirect=(values[:, 1:] - values[:, :1]).unflatten(1, (len(sites), -1)),
        clean=measure(metric, clean_BC),
        corrupt=values[:, 0],
    )  # fmt: skip


def _noise(config: ViTConfig, images: Tensor, samples: int, seed: int) -> Callable[[int], Tensor]:
    """Number of further images -> their standard normal noise [row, patch, d_model], sample by sample."""
    generator, shape = torch.Generator().manual_seed(seed), (samples, config.n_patches, config.d_model)
    return lambda n: torch.cat([torch.randn(shape, generator=generator) for _ in range(n)]).to(images)


@guarded
@torch.no_grad()
def embedding_scale(model: ViT, images: Tensor, *, batch: int = 64) -> float:
    """The standard deviation of all numbers in the patch embeddings of these images."""
    n, mean, squares = 0, 0.0, 0.0  # squares of deviations from the mean: the numbers may be far from zero
    for some in images.split(batch):
        x = record(model, some, "embed", stop=True)[1]["embed"][:, model.config.n_prefix :].double()
        step, share = x.mean().item() - mean, x.numel() / (n + x.numel())
        squares += (x - x.mean()).square().sum().item() + step**2 * n * share
        n, mean = n + x.numel(), mean + step * share
    return float((squares / n) ** 0.5)


def _measured(logits_NRC: Tensor, metric: Metric, clean_BC: Tensor, rows: Tensor, samples: int) -> Tensor:
    """The metric [image, run] of the images of a pass, mean over samples; other images keep their clean logits."""
    values = []
    for of_run in logits_NRC.unflatten(1, (-1, samples)):
        of_samples = [measure_rows(metric, x, rows, len(clean_BC), clean_BC) for x in of_run.unbind(1)]
        values.append(torch.stack(of_samples).mean(0))
    return torch.stack(values, dim=1)


def _object(images: Tensor, coverage: Tensor, config: ViTConfig) -> Tensor:
    """Boolean [image, patch]: the object's patches."""
    share_BP = coverage.flatten(1)
    if not len(images) or share_BP.shape != (len(images), config.n_patches):
        raise PrismaError(
            f"expected images and the coverage of their patches [{len(images)}, {config.n_patches}]; "
            f"found {list(coverage.shape)}"
        )
    if not ((share_BP >= 0) & (share_BP <= 1)).all():
        raise PrismaError("expected coverage from 0 to 1, the share of each patch that is object; found other numbers")
    object_BP = (share_BP > 0).to(images.device)
    if empty := (~object_BP.any(1)).nonzero().flatten().tolist():
        raise PrismaError(f"expected an object in every image; found none in image {empty[0]}")
    return object_BP


def _units(object_BP: Tensor, config: ViTConfig, axis: str) -> tuple[list[str], Tensor]:
    """Names and masks [image, unit, token] of the tokens that are restored together."""
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
    """The site to restore in each layer."""
    if site not in RESTORED or sever == site or sever not in (None, "attn_out", "mlp_out", "time_out"):
        raise PrismaError(
            f"expected a site among {', '.join(RESTORED)}, and sever to be attn_out, mlp_out or time_out but not the "
            f"site; found site={site!r} and sever={sever!r}"
        )
    if axis not in ("role", "token"):
        raise PrismaError(f"expected axis to be role or token; found {axis!r}")
    if window < 1 or samples < 1 or not noise > 0:
        raise PrismaError(
            f"expected a window and samples of at least 1 and noise above 0; found {window}, {samples} and {noise}"
        )
    if metric is None and not model.config.n_classes:
        raise PrismaError("expected a metric for a model without classes; found n_classes=0 and no metric")
    return sites_of_every_block(model, site)
