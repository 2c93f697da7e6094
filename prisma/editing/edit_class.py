"""Edit one MLP so that a ViT answers `target` for the images of a class, and as before for all others.

ROME's edit of a fact, with a class in the place of a subject: the key is what the map `mlp.out` of one layer reads at
the class token (or the object's patches), averaged over images of the class and copies of them that are shifted; the
change of its answer is found by optimisation, and the weight changes the least (`rank_one`). With `method="multi-key"`
every image (or patch) is a key of its own.

Unlike ROME, the search of the value runs the edited model itself: an image whose key is half like the mean key gets
half of the change. And the penalty that keeps other answers is the divergence on images of other classes.

Sources: Meng et al. 2022 (2202.05262) and 2023 (2210.07229).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.editing.edited_runs import EditedRuns, block_of
from prisma.editing.keys import class_of, covariance_name, covariances, key_site, tokens_of
from prisma.editing.rank_one import Covariance, least_change
from prisma.editing.value import optimal_value
from prisma.editing.weight_edit import LowRank, WeightEdit, source_of
from prisma.errors import PrismaError, quoted
from prisma.vit import ViT

METHODS = ("rank-one", "multi-key")
RIDGE = 1.0
"""The default ridge here: keys of one class are alike, and with a small ridge an edit fits those that it is given."""
OLD = 3000  # images for a covariance, where none is given


@dataclass(frozen=True)
class Search:
    """How the value of an edit is searched: see `value.optimal_value`.

    Attributes:
        kl: weight of the mean divergence, in nats, of the answers to images of other classes.
        others: how many such images.
    """

    steps: int = 25
    lr: float = 0.5
    decay: float = 0.1
    clamp: float = 4.0
    enough: float = 0.05
    kl: float = 1.0
    others: int = 128


@dataclass(frozen=True, eq=False)
class ClassImages:
    """The images of an edit: those of the class that it is about, and others."""

    own: Tensor
    own_coverage: Tensor | None
    others: Tensor
    rows: tuple[int, ...]  # the places of `own`, before copies, among the images given


@guarded
def edit_class(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    source: int | str,
    target: int | str,
    *,
    layer: int | None = None,
    role: str = "class",
    method: str = "rank-one",
    keys: int = 64,
    copies: int = 0,
    names: Sequence[str] = (),
    coverage: Tensor | None = None,
    covariance: Covariance | None = None,
    ridge: float = RIDGE,
    old: float | None = None,
    search: Search = Search(),
    seed: int = 0,
) -> WeightEdit:
    """What is the least change of one MLP after which the model calls the images of a class by another name?

    How well it does so is measured by `measure_edit`, on other images. The model itself is not changed.

    Args:
        images: [image, channel, height, width] with their `labels` [image]: training images, of all classes.
        source, target: the class that is edited and the one that it becomes, by number or by one of `names`.
        layer: whose MLP; the last by default. `layer_by_tracing` says where the model holds its information.
        role: at which tokens the keys are: class, object, background or patches (`keys.ROLES`).
        method: "rank-one" (one mean key) or "multi-key".
        keys: how many images of the class give keys.
        copies: shifted copies of each of these images, by up to an eighth of its sides, that give keys too.
        names: the names of the model's classes.
        coverage: [image, patch], the share of each patch that is object; for the roles object and background.
        covariance: of the keys of all images at this role; by default of the first 3,000 images given.
        ridge, old: as in `rank_one.least_change`; `old` is 0 for one key, and the number of keys for several.
        search: how the value is searched.
        seed: of the choice of images and of the shifts.

    Raises:
        PrismaError: no such class, layer, role or method; source and target are the same; a class without images; a
            model without classes; a covariance of another model or other keys.
    """
    one = _is_one(method)
    a, b = pair_of(model, labels, source, target, names)
    layer = model.config.n_layers - 1 if layer is None else layer
    chosen = choose(images, labels, a, keys, copies, search.others, seed, coverage)
    of_old = _covariance(model, images, layer, role, coverage, covariance)
    runs, reference = (EditedRuns.of(model, x, layer) for x in (chosen.own, chosen.others))
    keys_KN, start_KM = _keys(runs, role, chosen.own_coverage, one=one)
    weight = (0.0 if len(keys_KN) == 1 else float(len(keys_KN))) if old is None else old
    u, unit = least_change(keys_KN, torch.eye(len(keys_KN)), of_old, ridge=ridge, old=weight)
    found = optimal_value(start_KM, _loss(runs, reference, u, unit, b, search), **_steps(search))
    part = LowRank.of(model, f"blocks.{layer}.mlp.out", u, found.change.double().cpu().T @ unit)
    facts = {
        "layer": layer, "role": role, "keys": len(keys_KN), "images": len(chosen.rows), "copies": copies,
        "ridge": ridge, "old": weight, "search": asdict(search), "seed": seed, "losses": list(found.losses),
        "rows": list(chosen.rows), "covariance": {"of": of_old.of, "n": of_old.n},
    }  # fmt: skip
    return WeightEdit((part,), about_class(model, method, a, b, names, facts))


def _is_one(method: str) -> bool:
    """Whether a method has one mean key. Raises PrismaError if there is no such method."""
    if method not in METHODS:
        raise PrismaError(f"expected a method: {', '.join(METHODS)}; found {quoted(method)}")
    return method == METHODS[0]


def _keys(runs: EditedRuns, role: str, coverage: Tensor | None, *, one: bool) -> tuple[Tensor, Tensor]:
    """Keys [key, d_mlp] at the tokens of a role, and the answers to them [key, d_model]; or the mean of each."""
    tokens_BT = tokens_of(runs.model.config, role, len(runs.images), coverage).to(runs.images.device)
    keys, answers = runs.keys[tokens_BT], runs.out[tokens_BT]
    return (keys.mean(0, keepdim=True), answers.mean(0, keepdim=True)) if one else (keys, answers)


def _covariance(
    model: ViT, images: Tensor, layer: int, role: str, coverage: Tensor | None, given: Covariance | None
) -> Covariance:
    """The covariance that was given, checked, or that of the first images."""
    site = key_site(model, layer)
    if given is None:
        some = None if coverage is None else coverage[:OLD]
        given = covariances(model, images[:OLD], layer, (role,), coverage=some)[role]
    given.expect_of(covariance_name(site, role), source_of(model), block_of(model, layer).mlp.out.in_features)
    return given


def about_class(
    model: ViT, method: str, source: int, target: int, names: Sequence[str], facts: dict[str, Any]
) -> dict[str, Any]:
    """What an edit of a class says about itself."""
    named = {role: {"class": c, "name": names[c] if names else None} for role, c in (("from", source), ("to", target))}
    return {"method": method, **named, "model": source_of(model), **facts}


def pair_of(model: ViT, labels: Tensor, source: int | str, target: int | str, names: Sequence[str]) -> tuple[int, int]:
    """The numbers of two classes. Raises PrismaError as `edit_class`."""
    a, b = (class_of(name, model.config.n_classes, names) for name in (source, target))
    if a == b:
        raise PrismaError(f"expected two classes that differ; found {quoted(source)} twice")
    if not bool((labels == a).any()):
        raise PrismaError(f"expected images of the class {quoted(source)}; found none among {len(labels):,}")
    return a, b


def choose(
    images: Tensor,
    labels: Tensor,
    source: int,
    keys: int,
    copies: int,
    others: int,
    seed: int,
    coverage: Tensor | None = None,
) -> ClassImages:
    """Images of the class, drawn by the seed and with their copies, and images of all other classes."""
    if keys < 1 or copies < 0 or others < 0:
        raise PrismaError(f"expected keys of at least 1, copies and others of at least 0; found {keys, copies, others}")
    if len(images) != len(labels):
        raise PrismaError(f"expected a label for each image; found {len(images)} images and {len(labels)} labels")
    draw = torch.Generator().manual_seed(seed)
    mine, rest = ((labels == source).cpu().nonzero()[:, 0], (labels != source).cpu().nonzero()[:, 0])
    rows = mine[torch.randperm(len(mine), generator=draw)[:keys]].sort().values
    far = rest[torch.randperm(len(rest), generator=draw)[:others]].sort().values
    own = [images[rows], *(_shifted(images[rows], draw) for _ in range(copies))]
    covered = None if coverage is None else coverage[rows].flatten(1)
    if covered is not None and copies:
        raise PrismaError("expected no copies with coverage, which is of the images as they are; found copies")
    return ClassImages(torch.cat(own), covered, images[far], tuple(rows.tolist()))


def _shifted(images: Tensor, draw: torch.Generator) -> Tensor:
    """Each image moved by up to an eighth of its sides; what comes in at an edge is reflected."""
    h, w = images.shape[-2:]
    dy, dx = max(h // 8, 1), max(w // 8, 1)
    padded = F.pad(images, (dx, dx, dy, dy), mode="reflect")
    tops = torch.randint(2 * dy + 1, (len(images),), generator=draw).tolist()
    lefts = torch.randint(2 * dx + 1, (len(images),), generator=draw).tolist()
    moved = [x[:, top : top + h, left : left + w] for x, top, left in zip(padded, tops, lefts, strict=True)]
    return torch.stack(moved)


def _loss(runs: EditedRuns, reference: EditedRuns, u: Tensor, unit: Tensor, target: int, search: Search) -> Any:
    """The loss of wanted changes [key, d_model]."""
    own, far = runs.responses(u, unit), reference.responses(u, unit)
    before = reference.before.log_softmax(-1)

    def loss(changes: Tensor) -> Tensor:
        wanted = -runs.logits(own, changes).log_softmax(-1)[:, target].mean()
        if not search.kl or not len(before):
            return wanted
        after = reference.logits(far, changes).log_softmax(-1)
        return wanted + search.kl * F.kl_div(after, before, log_target=True, reduction="batchmean")

    return loss


def _steps(search: Search) -> dict[str, Any]:
    return {name: getattr(search, name) for name in ("steps", "lr", "decay", "clamp", "enough")}
