"""Other ways to edit a class, as values of the same kind: what the least change of an MLP is compared with.

    class_row       the row of the target in the head gets more of the direction of the class's features
    head_edit       a few attention heads write for this class what they write for the target, and for others as before
    steering        a direction is added to every image's stream, as a bias
    fine_tuning     the weight that `mean_key` changes, trained on the same images within a box

`class_row` and `head_edit` are least changes too, of other maps. `head_edit` takes an idea of RefineViT (Model Editing
for ViTs, NeurIPS 2025), which silences responsible heads and learns a projection that keeps what they do for others.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.border import record
from prisma.batching import inputs_per_pass
from prisma.editing.edited_runs import block_of
from prisma.editing.keys import key_site
from prisma.editing.rank_one import SecondMoment, least_change
from prisma.editing.request import Request
from prisma.editing.weight_edit import LowRank, WeightEdit
from prisma.edits import Set
from prisma.errors import PrismaError, quoted
from prisma.numbers import exact
from prisma.runs import run
from prisma.vit import ViT


@torch.no_grad()
def class_row(asked: Request, *, ridge: float = 1.0, margin: float = 1.0) -> WeightEdit:
    """Which least change of the target's row of the head makes it the answer for the mean image of the class?

    Args:
        ridge: as in `rank_one.least_change`.
        margin: by how much the target's logit is to exceed that of the answer, for the key image that needs most.
    """
    model, own, b = asked.model, asked.own(), asked.target
    logits, acts = record(model, own.images, "pooled")
    pooled = acts["pooled"]
    sums = SecondMoment("pooled", "")
    for some in asked.images[asked.old()].split(inputs_per_pass(model)):
        sums.add(record(model, some, "pooled")[1]["pooled"])
    u, unit = least_change(pooled.mean(0, keepdim=True), torch.ones(1, 1), sums.covariance(), ridge=ridge)
    share = (pooled.double().cpu() @ u @ unit.T)[:, 0].clamp(min=0.1)
    missing = (logits.max(-1).values - logits[:, b]).double().cpu() + margin
    row = torch.zeros(model.config.n_classes, 1, dtype=torch.float64)
    row[b] = (missing / share).max()
    part = LowRank.of(model, "readout.head", u, row @ unit)
    return asked.edit("class-row", [part], {"images": len(own.rows), "ridge": ridge, "rows": list(own.rows)})


@torch.no_grad()
def head_edit(asked: Request, *, heads: int = 4, ridge: float = 1.0) -> WeightEdit:
    """Do a few attention heads carry a class? What they write for its images becomes what they write for the target's.

    The heads are those whose mean output for the target, put in the place of their own at the class token, moves the
    logits most from `source` to `target`. What each head writes for other images is kept in the least squares.

    Args:
        heads: how many.
        ridge: as in `rank_one.least_change`.

    Raises:
        PrismaError: a model without a class token, fewer heads, or no images of the target.
    """
    model, config = asked.model, asked.model.config
    if not config.class_token or not 1 <= heads <= config.n_layers * config.n_heads:
        most = config.n_layers * config.n_heads
        token = "a" if config.class_token else "no"
        raise PrismaError(f"expected a class token, and from 1 to {most} heads; found {token} class token and {heads=}")
    own = asked.own()
    z_own, z_theirs, z_old = (_z(model, x) for x in (own.images, asked.theirs(), asked.images[asked.old()]))
    wanted = z_theirs.mean(1)  # [layer, head, d_head]
    chosen = _responsible(asked, own.images, wanted, heads)
    parts = []
    for layer in sorted({layer for layer, _ in chosen}):
        these = [head for at, head in chosen if at == layer]
        sums = SecondMoment("z", "")
        sums.add(z_old[layer][:, these].flatten(1))
        key = z_own[layer][:, these].flatten(1).mean(0, keepdim=True)
        columns = torch.arange(config.n_heads * config.d_head).view(config.n_heads, -1)[these].flatten()
        W = block_of(model, layer).attn.out.weight.detach()[:, columns]
        change = exact(wanted[layer, these].flatten() - key) @ exact(W).T
        u, v = least_change(key, change, sums.covariance(), ridge=ridge)
        whole = torch.zeros(config.n_heads * config.d_head, u.shape[1], dtype=u.dtype)
        whole[columns] = u
        parts.append(LowRank.of(model, f"blocks.{layer}.attn.out", whole, v))
    facts = {
        "images": len(own.rows), "heads": [list(head) for head in chosen], "ridge": ridge, "rows": list(own.rows),
    }  # fmt: skip
    return asked.edit("head-edit", parts, facts)


def _z(model: ViT, images: Tensor) -> Tensor:
    """[layer, image, head, d_head] at the class token, after the norm of all heads where there is one."""
    config = model.config
    site = "attn.ln.normalized" if config.norm_z else "attn.z"
    parts = []
    for some in images.split(inputs_per_pass(model)):
        acts = record(model, some, f"blocks.*.{site}")[1]
        parts.append(torch.stack([acts[f"blocks.{layer}.{site}"][:, 0] for layer in range(config.n_layers)]))
    return torch.cat(parts, 1)


def _responsible(asked: Request, own: Tensor, wanted: Tensor, heads: int) -> list[tuple[int, int]]:
    """The heads (layer, head) whose replacement moves the logits most towards the target, the most first."""
    model = asked.model
    config, site = model.config, "attn.ln.normalized" if model.config.norm_z else "attn.z"
    moved = torch.empty(config.n_layers, config.n_heads)
    for layer in range(config.n_layers):
        for head in range(config.n_heads):
            edit = {f"blocks.{layer}.{site}": Set(wanted[layer, head]).at(token=0, head=head)}
            moved[layer, head] = _gap(run(model, own, edit), asked.source, asked.target)
    best = moved.flatten().argsort(descending=True)[:heads].tolist()
    return [divmod(i, config.n_heads) for i in best]


def _gap(logits: Tensor, a: int, b: int) -> Tensor:
    return (logits[:, b] - logits[:, a]).mean()


@torch.no_grad()
def steering(asked: Request, *, layer: int | None = None, enough: float = 0.95) -> WeightEdit:
    """How well does one direction, added for all images alike, turn a class into another?

    The direction is the mean stream of the target's images minus that of the class's, after `layer`, at the class token
    (without one: over all tokens). It is added to every token by the bias of the MLP; its strength is the least, of
    steps of a quarter up to 4, that answers `target` for a share `enough` of the key images.

    Raises:
        PrismaError: a block whose MLP output is normed or scaled, or no images of the target.
    """
    model, layer = asked.model, asked.layer(layer)
    key_site(model, layer)
    if model.config.norm == "res_post" or model.config.layer_scale:
        raise PrismaError(
            "expected a block that adds the output of its MLP as it is; found one that norms or scales it"
        )
    own, site = asked.own(), f"blocks.{layer}.resid_post"
    means = [record(model, x, site, stop=True)[1][site] for x in (own.images, asked.theirs())]
    first, second = (x[:, 0] if model.config.class_token else x.flatten(0, 1) for x in means)
    direction = (second.mean(0) - first.mean(0))[:, None]
    for strength in (step / 4 for step in range(1, 17)):
        part = LowRank.of(model, f"blocks.{layer}.mlp.out.bias", torch.ones(1, 1), strength * direction)
        facts = {"layer": layer, "images": len(own.rows), "strength": strength, "rows": list(own.rows)}
        edit = asked.edit("steering", [part], facts)
        with edit.apply(model):
            if float((model(own.images).argmax(-1) == asked.target).float().mean()) >= enough:
                break
    return edit


def fine_tuning(
    asked: Request, *, layer: int | None = None, steps: int = 25, lr: float = 0.1, box: float | None = 0.2
) -> WeightEdit:
    """How well does training one MLP do, on the same images, with every number kept within a box?

    Args:
        lr: the step of Adam, in units of the root mean square of the weight.
        box: the largest change of a number in the same units; None: no limit.

    Raises:
        PrismaError: settings out of range.
    """
    if steps < 1 or not lr > 0 or (box is not None and not box > 0):
        raise PrismaError(f"expected steps, lr and box above 0; found {quoted((steps, lr, box))}")
    model, layer = asked.model, asked.layer(layer)
    key_site(model, layer)
    own, name = asked.own(), f"blocks.{layer}.mlp.out.weight"
    weights = {key: x.detach() for key, x in model.named_parameters()}
    start = exact(weights[name])
    size = float(start.square().mean().sqrt())
    target_B = torch.full((len(own.images),), asked.target, device=own.images.device)
    with torch.enable_grad():
        change = torch.zeros_like(start, requires_grad=True)
        adam = torch.optim.Adam([change], lr=lr * size)
        for _ in range(steps):
            moved = {**weights, name: (start + change).to(weights[name])}
            logits = torch.func.functional_call(model, moved, (own.images,))
            adam.zero_grad()
            F.cross_entropy(exact(logits), target_B).backward()
            adam.step()
            if box is not None:
                change.data.clamp_(-box * size, box * size)
    full = change.detach().double().cpu()
    wide = len(full) > full.shape[1]
    u, v = (torch.eye(full.shape[1]), full) if wide else (full.T, torch.eye(len(full)))
    facts = {"layer": layer, "images": len(own.rows), "steps": steps, "lr": lr, "box": box, "rows": list(own.rows)}
    return asked.edit("fine-tuning", [LowRank.of(model, name, u, v)], facts)
