"""Other ways to edit a class, as values of the same kind: what the edit of an MLP is compared with.

    class_row       the row of the target in the head gets more of the direction of the class's features
    head_edit       a few attention heads write for this class what they write for the target, and for others as before
    steering        a direction is added to every image's stream, as a bias
    fine_tuning     the same weight as `edit_class`, trained on the same images within a box

`class_row` and `head_edit` are least changes too, of other maps. `head_edit` takes an idea of RefineViT (Model Editing
for ViTs, NeurIPS 2025), which silences responsible heads and learns a projection that keeps what they do for others.
What a sparse latent does is measured without a change of weights: `measure_edit(..., {site: Splice(coder).ablate(j)})`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.border import guarded, record
from prisma.batching import inputs_per_pass
from prisma.editing.edit_class import about_class, choose, pair_of
from prisma.editing.edited_runs import block_of
from prisma.editing.keys import key_site
from prisma.editing.rank_one import SecondMoment, least_change
from prisma.editing.weight_edit import LowRank, WeightEdit
from prisma.edits import Set
from prisma.errors import PrismaError, quoted
from prisma.runs import run
from prisma.vit import ViT

OLD = 3000


@guarded
@torch.no_grad()
def class_row(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    source: int | str,
    target: int | str,
    *,
    keys: int = 64,
    names: Sequence[str] = (),
    ridge: float = 1.0,
    margin: float = 1.0,
    seed: int = 0,
) -> WeightEdit:
    """Which least change of the target's row of the head makes it the answer for the mean image of the class?

    Args:
        margin: by how much the target's logit is to exceed that of the answer, for the key image that needs most.
        images, labels, source, target, keys, names, ridge, seed: as in `edit_class`.

    Raises:
        PrismaError: as `edit_class`.
    """
    a, b = pair_of(model, labels, source, target, names)
    chosen = choose(images, labels, a, keys, 0, 0, seed)
    logits, acts = record(model, chosen.own, "pooled")
    pooled = acts["pooled"]
    sums = SecondMoment("pooled", "")
    for some in images[:OLD].split(inputs_per_pass(model)):
        sums.add(record(model, some, "pooled")[1]["pooled"])
    u, unit = least_change(pooled.mean(0, keepdim=True), torch.ones(1, 1), sums.covariance(), ridge=ridge)
    share = (pooled.double().cpu() @ u @ unit.T)[:, 0].clamp(min=0.1)
    missing = (logits.max(-1).values - logits[:, b]).double().cpu() + margin
    row = torch.zeros(model.config.n_classes, 1, dtype=torch.float64)
    row[b] = (missing / share).max()
    edit = LowRank.of(model, "readout.head", u, row @ unit)
    return WeightEdit(
        (edit,), about_class(model, "class-row", a, b, names, {"images": len(chosen.rows), "rows": list(chosen.rows)})
    )


@guarded
@torch.no_grad()
def head_edit(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    source: int | str,
    target: int | str,
    *,
    heads: int = 4,
    keys: int = 64,
    names: Sequence[str] = (),
    ridge: float = 1.0,
    seed: int = 0,
) -> WeightEdit:
    """Do a few attention heads carry a class? What they write for its images becomes what they write for the target's.

    The heads are those whose mean output for the target, put in the place of their own at the class token, moves the
    logits most from `source` to `target`. What each head writes for other images is kept in the least squares.

    Args:
        heads: how many.
        images, labels, source, target, keys, names, ridge, seed: as in `edit_class`.

    Raises:
        PrismaError: as `edit_class`; a model without a class token, or fewer heads.
    """
    config = model.config
    if not config.class_token or not 1 <= heads <= config.n_layers * config.n_heads:
        most = config.n_layers * config.n_heads
        raise PrismaError(f"expected a class token, and from 1 to {most} heads; found {config.class_token=}, {heads=}")
    a, b = pair_of(model, labels, source, target, names)
    pair_of(model, labels, b, a, names)  # images of the target too
    first, second = (choose(images, labels, c, keys, 0, 0, seed) for c in (a, b))
    own, theirs = first.own, second.own
    z_own, z_theirs, z_old = (_z(model, x) for x in (own, theirs, images[:OLD]))
    wanted = z_theirs.mean(1)  # [layer, head, d_head]
    chosen = _responsible(model, own, wanted, a, b, heads)
    parts = []
    for layer in sorted({layer for layer, _ in chosen}):
        these = [head for at, head in chosen if at == layer]
        sums = SecondMoment("z", "")
        sums.add(z_old[layer][:, these].flatten(1))
        key = z_own[layer][:, these].flatten(1).mean(0, keepdim=True)
        columns = torch.arange(config.n_heads * config.d_head).view(config.n_heads, -1)[these].flatten()
        W = block_of(model, layer).attn.out.weight.detach()[:, columns]
        change = (wanted[layer, these].flatten() - key) @ W.T
        u, v = least_change(key, change, sums.covariance(), ridge=ridge)
        whole = torch.zeros(config.n_heads * config.d_head, u.shape[1], dtype=u.dtype)
        whole[columns] = u
        parts.append(LowRank.of(model, f"blocks.{layer}.attn.out", whole, v))
    facts = {"images": len(own), "heads": [list(head) for head in chosen], "rows": list(first.rows)}
    return WeightEdit(tuple(parts), about_class(model, "head-edit", a, b, names, facts))


def _z(model: ViT, images: Tensor) -> Tensor:
    """[layer, image, head, d_head] at the class token, after the norm of all heads where there is one."""
    config = model.config
    site = "attn.ln.normalized" if config.norm_z else "attn.z"
    parts = []
    for some in images.split(inputs_per_pass(model)):
        acts = record(model, some, f"blocks.*.{site}")[1]
        parts.append(torch.stack([acts[f"blocks.{layer}.{site}"][:, 0] for layer in range(config.n_layers)]))
    return torch.cat(parts, 1)


def _responsible(model: ViT, own: Tensor, wanted: Tensor, a: int, b: int, heads: int) -> list[tuple[int, int]]:
    """The heads (layer, head) whose replacement moves the logits most from class a to b, the most first."""
    config, site = model.config, "attn.ln.normalized" if model.config.norm_z else "attn.z"
    moved = torch.empty(config.n_layers, config.n_heads)
    for layer in range(config.n_layers):
        for head in range(config.n_heads):
            edit = {f"blocks.{layer}.{site}": Set(wanted[layer, head]).at(token=0, head=head)}
            moved[layer, head] = _gap(run(model, own, edit), a, b)
    best = moved.flatten().argsort(descending=True)[:heads].tolist()
    return [divmod(i, config.n_heads) for i in best]


def _gap(logits: Tensor, a: int, b: int) -> Tensor:
    return (logits[:, b] - logits[:, a]).mean()


@guarded
@torch.no_grad()
def steering(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    source: int | str,
    target: int | str,
    *,
    layer: int | None = None,
    keys: int = 64,
    names: Sequence[str] = (),
    enough: float = 0.95,
    seed: int = 0,
) -> WeightEdit:
    """How well does one direction, added for all images alike, turn a class into another?

    The direction is the mean stream of the target's images minus that of the class's, after `layer`, at the class token
    (without one: over all tokens). It is added to every token by the bias of the MLP; its strength is the least, of
    steps of a quarter up to 4, that answers `target` for a share `enough` of the key images.

    Raises:
        PrismaError: as `edit_class`; a block whose MLP output is normed or scaled.
    """
    a, b = pair_of(model, labels, source, target, names)
    pair_of(model, labels, b, a, names)
    layer = model.config.n_layers - 1 if layer is None else layer
    key_site(model, layer)
    if model.config.norm == "res_post" or model.config.layer_scale:
        raise PrismaError(
            "expected a block that adds the output of its MLP as it is; found one that norms or scales it"
        )
    mine, other = (choose(images, labels, c, keys, 0, 0, seed) for c in (a, b))
    own, theirs, rows = mine.own, other.own, list(mine.rows)
    site = f"blocks.{layer}.resid_post"
    means = [record(model, x, site, stop=True)[1][site] for x in (own, theirs)]
    first, second = (x[:, 0] if model.config.class_token else x.flatten(0, 1) for x in means)
    direction = (second.mean(0) - first.mean(0))[:, None]
    for strength in (step / 4 for step in range(1, 17)):
        part = LowRank.of(model, f"blocks.{layer}.mlp.out.bias", torch.ones(1, 1), strength * direction)
        edit = WeightEdit(
            (part,), about_class(model, "steering", a, b, names, {"layer": layer, "strength": strength, "rows": rows})
        )
        with edit.apply(model):
            if float((model(own).argmax(-1) == b).float().mean()) >= enough:
                break
    return edit


@guarded
def fine_tuning(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    source: int | str,
    target: int | str,
    *,
    layer: int | None = None,
    keys: int = 64,
    names: Sequence[str] = (),
    steps: int = 25,
    lr: float = 0.1,
    box: float | None = 0.2,
    seed: int = 0,
) -> WeightEdit:
    """How well does training the same weight do, on the same images, with every number kept within a box?

    Args:
        lr: the step of Adam, in units of the root mean square of the weight.
        box: the largest change of a number in the same units; None: no limit.
        images, labels, source, target, layer, keys, names, seed: as in `edit_class`.

    Raises:
        PrismaError: as `edit_class`, or settings out of range.
    """
    if steps < 1 or not lr > 0 or (box is not None and not box > 0):
        raise PrismaError(f"expected steps, lr and box above 0; found {quoted((steps, lr, box))}")
    a, b = pair_of(model, labels, source, target, names)
    layer = model.config.n_layers - 1 if layer is None else layer
    key_site(model, layer)
    chosen, name = choose(images, labels, a, keys, 0, 0, seed), f"blocks.{layer}.mlp.out.weight"
    own = chosen.own
    weights = {key: x.detach() for key, x in model.named_parameters()}
    size = float(weights[name].square().mean().sqrt())
    target_B = torch.full((len(own),), b, device=own.device)
    with torch.enable_grad():
        change = torch.zeros_like(weights[name], requires_grad=True)
        adam = torch.optim.Adam([change], lr=lr * size)
        for _ in range(steps):
            logits = torch.func.functional_call(model, {**weights, name: weights[name] + change}, (own,))
            adam.zero_grad()
            F.cross_entropy(logits, target_B).backward()
            adam.step()
            if box is not None:
                change.data.clamp_(-box * size, box * size)
    full = change.detach().double().cpu()
    wide = len(full) > full.shape[1]
    u, v = (torch.eye(full.shape[1]), full) if wide else (full.T, torch.eye(len(full)))
    facts = {
        "layer": layer,
        "images": len(own),
        "steps": steps,
        "lr": lr,
        "box": box,
        "seed": seed,
        "rows": list(chosen.rows),
    }
    return WeightEdit((LowRank.of(model, name, u, v),), about_class(model, "fine-tuning", a, b, names, facts))
