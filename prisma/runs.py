"""Reading and editing a model: `record` and `run`; and `finish` and `resume`, runs that start inside the model.

They store nothing on the model, accept a compiled model, and keep the caller's autograd mode.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prisma.blocks import BRANCHES
from prisma.config import TextConfig, TransformerConfig, ViTConfig
from prisma.edits import Edit, Set, as_edit
from prisma.errors import NotFiniteError, PrismaError
from prisma.inventory import site_names
from prisma.numbers import first_not_finite
from prisma.pixels import warn_of_range
from prisma.plain import expect_plain, is_plain
from prisma.sites import Cache, Tap, canonical, matching
from prisma.text import TextTower
from prisma.vit import ViT, expect_pixels

Model = ViT | TextTower
"""A model of images [batch, channel, (frame,) height, width], or a text tower of token ids [batch, context]."""

Edits = Mapping[str, Any]
"""Site name or glob -> an Edit, a function of a tensor, or a list of them. Each site is in one pattern."""


def record(
    model: Model, images: Tensor, read: str | Iterable[str], edit: Edits | None = None, *, stop: bool = False
) -> tuple[Tensor, Cache]:
    """Run the model and return its logits together with any intermediates.

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
        PrismaError: a site does not exist in this model (the error lists the nearest names), two patterns edit one
            site, or the images do not fit.
    """
    expect_inputs(model, images)
    tap = _tap(model, [read] if isinstance(read, str) else read, edit)
    output = _stopped(model, images, tap) if stop else model(images, tap=tap)
    tap.expect_reached(edited=not stop)
    return output, Cache(tap.tensors)


def run(model: Model, images: Tensor, edit: Edits | None = None) -> Tensor:
    """Logits [batch, class] of a run with edits: `run(model, images, {"blocks.5.attn.z": Zero().at(head=3)})`.

    Raises:
        PrismaError: as in `record`.
    """
    expect_inputs(model, images)
    tap = _tap(model, (), edit)
    logits: Tensor = model(images, tap=tap)
    tap.expect_reached()
    return logits


def expect_inputs(model: Any, inputs: Any, what: str = "images") -> None:
    """Check that a model is one of Prisma's, and that its inputs are a batch of tensors on its device.

    Shape and precision are checked by the model itself, which states both.

    Raises:
        PrismaError: another kind of model, which may hold one of Prisma's (DataParallel, Loaded); no tensor, or one on
            another device.
    """
    expect_model(model)
    if not isinstance(inputs, Tensor):
        advice = ": use torch.stack([loaded.transform(image) for image in images])"
        raise PrismaError(f"expected {what} as a tensor with an axis for the batch; found {kind_of(inputs)}{advice}")
    if inputs.device != (ours := next(model.parameters()).device):
        raise PrismaError(
            f"expected {what} on {ours}, like the model; found them on {inputs.device}: use {what}.to({str(ours)!r})"
        )


def expect_model(model: Any) -> None:
    """Raise PrismaError, which says what to pass instead, unless this is a model of Prisma."""
    if not (isinstance(model, nn.Module) and isinstance(getattr(model, "config", None), TransformerConfig)):
        raise PrismaError(f"expected a prisma.ViT; found {kind_of(model)}{_inside(model)}")


def kind_of(value: Any) -> str:
    """A value's class as a phrase: "a numpy.ndarray", "a list"."""
    return f"a {type(value).__module__.split('.')[0]}.{type(value).__name__}".replace("a builtins.", "a ")


def _inside(model: Any) -> str:
    """What to pass instead, if a model is inside."""
    if hasattr(model, "_torchdynamo_orig_callable"):
        return ", which torch.compile made: pass the model itself, or what torch.compile makes of it once"
    found = (name for name in ("module", "model") if isinstance(getattr(model, name, None), nn.Module))
    return next((f": pass its .{name}" for name in found), "")


def _tap(model: Model, read: Iterable[str], edit: Edits | None) -> Tap:
    """A tap for names and globs, which are resolved against the sites of this model once."""
    sites = site_names(model.config)
    names = frozenset(site for pattern in read for site in matching(pattern, sites))
    edits = edits_by_site(edit or {}, sites)
    for site, one in ((site, one) for site, some in edits.items() for one in some):
        one.expect_fits(model, site)
    return Tap(names, edits)


def edits_by_site(edit: Edits, sites: Iterable[str]) -> dict[str, tuple[Edit, ...]]:
    """Full site name -> its edits, from patterns. Raises PrismaError if two patterns select one site."""
    known, edits, pattern_of = list(sites), dict[str, tuple[Edit, ...]](), dict[str, str]()
    for pattern, value in edit.items():
        for site in matching(pattern, known):
            if site in edits:
                raise PrismaError(
                    f"expected one pattern for the edits of {site}; found {pattern_of[site]!r} and {pattern!r}: write "
                    "several edits of one site as a list, in the order in which they apply"
                )
            edits[site], pattern_of[site] = as_edit(value), pattern
            _expect_finite_edits(site, edits[site])
    return edits


def _expect_finite_edits(site: str, edits: Iterable[Edit]) -> None:
    """Raise NotFiniteError if an edit has a value that is not finite; minus infinity masks a key of `scores`."""
    for edit in edits:
        for value in vars(edit).values():
            if isinstance(value, Edit):
                _expect_finite_edits(site, (value,))
            elif isinstance(value, float) or (isinstance(value, Tensor) and value.is_floating_point()):
                found = torch.as_tensor(value)
                if site.endswith(".scores"):
                    found = found.masked_fill(found == -torch.inf, 0)
                if (wrong := first_not_finite(found)) is not None:
                    raise NotFiniteError(f"expected finite numbers in the edit of {site}; found {wrong[1]}")


def check_pixels(model: Model, images: Tensor) -> None:
    """Warn if these pixels cannot come from the model's transform, where it is known (`prisma.pixels`).

    Raises:
        PrismaError: they are no images of this model, or of another precision, which would be the reason.
    """
    if isinstance(model.config, ViTConfig):
        expect_pixels(model.config, next(model.parameters()).dtype, images)
    warn_of_range(images, getattr(model, "pixel_range", None))


def in_steps(model: Model, site: str) -> bool:
    """Whether a run may start inside a block, at this site of every block.

    False if the model, a block, or the branch that the site is in carries something of its own, such as a hook, that
    happens only when it is called as a whole. All other parts are called, so those may carry anything.
    """
    within = [name for name in BRANCHES if site.startswith(f"{name}.")]
    branches = [getattr(block, name, None) for block in model.blocks for name in within]
    return all(part is None or is_plain(part) for part in (model, *model.blocks, *branches))


def attention_stream(model: Model, layer: int) -> str:
    """The site of the stream that a block's attention reads and adds to."""
    config = model.config
    divided = isinstance(config, ViTConfig) and config.attention == "divided"
    return f"blocks.{layer}.{'resid_time' if divided else 'resid_pre'}"


def _stopped(model: Model, inputs: Tensor, tap: Tap) -> Tensor:
    """The forward, up to the end of the last block in which a site is read."""
    check_pixels(model, inputs)
    last, layers = max((_stage(model, site) for site in tap.read), default=0), model.config.n_layers
    if not is_plain(model) and layers:  # a whole run, of which the stream there is read
        stream = f"blocks.{last}.resid_pre" if last < layers else f"blocks.{layers - 1}.resid_post"
        whole = Tap({*tap.read, stream}, tap.edit, reached=tap.reached)
        logits: Tensor = model(inputs, tap=whole)
        tap.tensors.update({site: x for site, x in whole.tensors.items() if site in tap.read})
        return logits if last > layers else whole.tensors[stream]
    x = model.encode(model.embed(inputs, tap), stop=last, tap=tap)
    return x if last <= model.config.n_layers else _read_out(model, x, inputs, tap)


def _read_out(model: Model, x: Tensor, inputs: Tensor, tap: Tap) -> Tensor:
    """Residual stream -> logits. A text tower needs the token ids too: they tell which token is pooled."""
    of_text = isinstance(model.config, TextConfig)  # the class of a compiled model is neither
    logits: Tensor = model.readout(x, inputs, tap) if of_text else model.readout(x, tap)
    return logits


def _stage(model: Model, site: str) -> int:
    """How many blocks must run to reach a site; n_layers + 1 for the sites of the readout."""
    if site.startswith("blocks."):
        return int(site.split(".")[1]) + 1
    return 0 if site in ("embed", "pos_embed", "ln_pre") else model.config.n_layers + 1


def finish(model: Model, x: Tensor, inputs: Tensor, *, start: int, tap: Tap | None = None) -> Tensor:
    """Logits [batch, class] of a run that continues from the residual stream [batch, token, d_model] before a block.

    The last block computes only the tokens that the readout reads, unless the tap reads or edits a site there or later.

    Args:
        inputs: the images or token ids of the run.
        start: the block that the stream comes before; `n_layers` for the readout alone.

    Raises:
        PrismaError: the model itself carries a hook or another change, which is part of a whole run only.
    """
    expect_plain(model, [""], "a run that starts inside the model", gradients=torch.is_grad_enabled())
    tap = Tap() if tap is None else tap
    x = model.encode(x, start=start, tap=tap, keep=tokens_needed(model, tap))
    return _read_out(model, x, inputs, tap)


def resume(
    model: Model,
    inputs: Tensor,
    layer: int,
    site: str,
    value: Tensor,
    x: Tensor,
    resid_mid: Tensor | None = None,
    tap: Tap | None = None,
) -> Tensor:
    """Logits [batch, class] of a run that continues from the value of a site inside a block.

    Args:
        inputs: the images or token ids of the run.
        layer: the block.
        site: one of its sites in `blocks.RESUMABLE`, such as `attn.z`; in divided attention also `resid_time`.
        value: the value of the site [batch, token, ...].
        x: the stream that the block's attention reads and adds to [batch, token, d_model].
        resid_mid: the stream that its MLP adds to; needed for sites of the MLP.

    Where the model or a block carries a hook or another change, this is a whole run in which these values are set.
    """
    tap = Tap() if tap is None else tap
    if not in_steps(model, site):
        return _whole(model, inputs, layer, site, value, x, resid_mid, tap)
    keep = tokens_needed(model, tap) if layer == model.config.n_layers - 1 else None
    block: Any = model.blocks[layer]
    after = block.resume(site, value, x, resid_mid, tap.within(f"blocks.{layer}"), keep)
    return finish(model, after, inputs, start=layer + 1, tap=tap)


def _whole(
    model: Model, inputs: Tensor, layer: int, site: str, value: Tensor, x: Tensor, resid_mid: Tensor | None, tap: Tap
) -> Tensor:
    """As `resume`, by a run from the inputs on in which the given values are set."""
    middle = resid_mid if site.startswith("mlp") else None
    given = {attention_stream(model, layer): None if site == "resid_pre" else x, f"blocks.{layer}.resid_mid": middle}
    given[f"blocks.{layer}.{site}"] = value
    edits = {name: (Set(found), *tap.edit.get(name, ())) for name, found in given.items() if found is not None}
    whole = Tap(tap.read, {**tap.edit, **edits}, tensors=tap.tensors, reached=tap.reached)
    logits: Tensor = model(inputs, tap=whole)
    whole.expect_reached()
    return logits


def tokens_needed(model: Model, tap: Tap) -> int | None:
    """How many tokens of the last block, from the first, a run needs; None for all."""
    last = model.config.n_layers
    if any(_stage(model, site) >= last for site in (*tap.read, *tap.edit)):
        return None
    parts = model.blocks[-1].modules() if last else ()
    return readout_tokens(model) if all(map(is_plain, parts)) else None  # what they carry may look at other tokens


def readout_tokens(model: Model) -> int | None:
    """How many of the first tokens the readout reads; None if it may read all of them."""
    config = model.config
    if isinstance(config, TextConfig) or config.attention == "divided":
        return None
    found = {"class": 1, "distilled": 2}.get(config.pool)
    return found if found is None or all(map(is_plain, model.readout.modules())) else None


def sites_of_every_block(model: Model, site: str) -> list[str]:
    """`attn.z` -> `blocks.0.attn.z`, `blocks.1.attn.z`, ...

    Raises:
        PrismaError: the model has no layers, or not this site in every layer (with the nearest names).
    """
    if not model.config.n_layers:
        raise PrismaError("expected a model with layers; found n_layers=0")
    known, first = site_names(model.config), "blocks.0."
    if (named := canonical(site)).startswith("blocks."):
        raise PrismaError(f"expected a site of every block, without its number, such as attn.z; found {site!r}")
    if matching(named, [name.removeprefix(first) for name in known if name.startswith(first)]) != [named]:
        raise PrismaError(f"expected one site of every block, such as attn.z; found {site!r}")
    names, there = [f"blocks.{layer}.{named}" for layer in range(model.config.n_layers)], set(known)
    return [name if name in there else matching(name, known)[0] for name in names]
