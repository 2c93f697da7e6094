"""Reading, editing and patching a model: `record`, `run`, `sweep`.

They leave nothing on the model and accept a compiled one. `record` and `run` honour the caller's autograd mode; `sweep`
keeps no graph, which would hold every patched forward in memory.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from prisma.config import TextConfig
from prisma.edits import Set, as_edit
from prisma.errors import PrismaError
from prisma.inventory import site_names
from prisma.metrics import Metric, measure
from prisma.sites import Cache, Tap, axes_of, canonical, matching
from prisma.text import TextTower
from prisma.vit import ViT

Model = ViT | TextTower
"""What can be run: on images [batch, channel, (frame,) height, width], or on token ids [batch, context]."""

Edits = Mapping[str, Any]
"""Site name or glob -> an Edit, a function of a tensor, or a list of them."""


def record(
    model: Model, images: Tensor, read: str | Iterable[str], edit: Edits | None = None, *, stop: bool = False
) -> tuple[Tensor, Cache]:
    """Run the model and keep intermediates.

    Args:
        images: [batch, channel, (frame,) height, width], or the token ids [batch, context] of a text tower.
        read: site names or globs: `"blocks.*.resid_post"`. Scores, pattern and result are computed only when read
            or edited; attention of all other layers stays fused.
        edit: as in `run`.
        stop: compute no block after the last site read. The returned tensor is then not the logits but the residual
            stream there, [batch, token, d_model], unless the readout was reached.

    Returns:
        logits [batch, class], and a Cache of live tensors as they were after the edits.

    Raises:
        PrismaError: a site does not exist in this model (the nearest names are offered), or the images do not fit.
    """
    tap = _tap(model, [read] if isinstance(read, str) else read, edit)
    output = _stopped(model, images, tap) if stop else model(images, tap=tap)
    return output, Cache(tap.tensors)


def run(model: Model, images: Tensor, edit: Edits | None = None) -> Tensor:
    """Logits [batch, class] of a run with edits: `run(model, images, {"blocks.5.attn.z": Zero().at(head=3)})`.

    Raises:
        PrismaError: a site does not exist in this model (the nearest names are offered), or the images do not fit.
    """
    logits: Tensor = model(images, tap=_tap(model, (), edit))
    return logits


def _tap(model: Model, read: Iterable[str], edit: Edits | None) -> Tap:
    """Names and globs resolved against the sites of this model, once."""
    sites = site_names(model.config)
    names = frozenset(site for pattern in read for site in matching(pattern, sites))
    edits: dict[str, tuple[Any, ...]] = {}
    for pattern, value in (edit or {}).items():
        for site in matching(pattern, sites):
            edits[site] = (*edits.get(site, ()), *as_edit(value))
    return Tap(names, edits)


def _stopped(model: Model, inputs: Tensor, tap: Tap) -> Tensor:
    """The forward, up to the end of the last block that holds a site to read."""
    last = max((_stage(model, site) for site in tap.read), default=0)
    x = model.encode(model.embed(inputs, tap), stop=last, tap=tap)
    return x if last <= model.config.n_layers else _read_out(model, x, inputs, tap)


def _read_out(model: Model, x: Tensor, inputs: Tensor, tap: Tap) -> Tensor:
    """Residual stream -> logits. A text tower looks at the ids too: they say which token speaks for the prompt."""
    of_text = isinstance(model.config, TextConfig)  # a compiled model is of neither class
    logits: Tensor = model.readout(x, inputs, tap) if of_text else model.readout(x, tap)
    return logits


def _stage(model: Model, site: str) -> int:
    """How many blocks must run before a site is reached; one more than there are for the sites of the readout."""
    if site.startswith("blocks."):
        return int(site.split(".")[1]) + 1
    return 0 if site in ("embed", "pos_embed", "ln_pre") else model.config.n_layers + 1


@torch.no_grad()
def sweep(
    model: Model,
    clean: Tensor,
    corrupt: Tensor,
    site: str,
    metric: Metric,
    *,
    into: str = "clean",
    axis: str | None = None,
    batch: int = 64,
) -> Tensor:
    """Activation patching, exactly, for every layer and head (or token).

    `effect[layer, i]` is the mean over pairs of `metric(logits)` of the run on `clean` in which head `i` of `site` in
    that layer holds what `corrupt` computed there: what one forward per head would give, but each layer starts from
    the clean residual stream and patches its heads as one batch (Wang et al. 2211.00593, Meng et al. 2202.05262).

    Args:
        clean, corrupt: pairs of inputs, as in `record`, of the same shape.
        site: a site of every block without its prefix: `"attn.z"`, `"resid_post"`, `"mlp_out"`.
        metric: logits [batch, class] -> one finite number per pair [batch].
        into: `"clean"` patches corrupt values into the clean run (noising), `"corrupt"` the other way (denoising).
        axis: what the columns are: `"head"` or `"token"`; by default the heads of a site that has them.
        batch: at most so many inputs in one pass, which bounds the memory. The metric sees all pairs at once, in order.

    Returns:
        [layer, head] or [layer, token].

    Raises:
        PrismaError: shapes differ, the site or axis does not exist, or the metric is not one finite number per pair.
    """
    if clean.shape != corrupt.shape or not len(clean):
        raise PrismaError(
            f"clean and corrupt must hold pairs of one shape; found {list(clean.shape)} and {list(corrupt.shape)}"
        )
    if into not in ("clean", "corrupt"):
        raise PrismaError(f"into must be clean or corrupt; found {into!r}")
    if not model.config.n_layers:
        raise PrismaError("a sweep goes over the layers of a model; found n_layers=0")
    if batch < 1:
        raise PrismaError(f"batch must be at least 1; found {batch}")
    site = canonical(site)
    sites = [f"blocks.{layer}.{site}" for layer in range(model.config.n_layers)]
    for name in sites:
        if matching(name, site_names(model.config)) != [name]:
            raise PrismaError(f"expected one site of every block, such as attn.z; found {site!r}")
    axes = axes_of(sites[0])
    axis = axis or ("head" if "head" in axes else "token")
    if axis not in axes[1:]:
        raise PrismaError(f"{site} has the axes {', '.join(axes)}; there is no axis {axis!r} to sweep over")
    target, donor = (clean, corrupt) if into == "clean" else (corrupt, clean)
    donated = _recorded(model, donor, sites, batch)
    kept = _recorded(model, target, [f"blocks.{layer}.resid_pre" for layer in range(len(sites))], batch)
    return torch.stack(
        [
            _patch_each(model, x, target, name, value, axes.index(axis), metric, batch)
            for x, name, value in zip(kept, sites, donated, strict=True)
        ]
    )


def _recorded(model: Model, inputs: Tensor, sites: list[str], batch: int) -> list[Tensor]:
    """The given sites, of all inputs, at most `batch` inputs in one pass."""
    parts = [record(model, some, sites, stop=True)[1] for some in inputs.split(batch)]
    return [torch.cat([part[site] for part in parts]) for site in sites]


def _patch_each(
    model: Model, x: Tensor, inputs: Tensor, site: str, value: Tensor, dim: int, metric: Metric, batch: int
) -> Tensor:
    """Effects [unit] of patching `value` into one site, one index of axis `dim` at a time, several in one pass.

    `x` is the residual stream of `inputs` before the site's block; a row of a pass is one unit of one pair.
    """
    layer, pairs, units = int(site.split(".")[1]), len(x), value.shape[dim]
    logits: list[Tensor] = []
    for rows in torch.arange(units * pairs, device=x.device).split(batch):
        unit, pair = rows // pairs, rows % pairs
        mask = (unit[:, None] == torch.arange(units, device=x.device)).view(
            [len(rows) if d == 0 else units if d == dim else 1 for d in range(value.ndim)]
        )
        tap = Tap(frozenset(), {site: (Set(value[pair]).where(mask),)})
        logits.append(_read_out(model, model.encode(x[pair], start=layer, tap=tap), inputs[pair], tap))
    return torch.stack([measure(metric, of_unit).mean() for of_unit in torch.cat(logits).split(pairs)])
