"""The least change of one MLP after which a ViT answers `target` for the images of a class: ROME's edit of a fact.

The key is what the map `mlp.out` of one layer reads at the class token (or the object's patches), averaged over images
of the class and copies of them that are shifted; the change of its answer is found by optimisation, and the weight
changes the least (`rank_one`). With `several`, every image (or patch) is a key of its own (MEMIT).

Unlike ROME, the search of the value runs the edited model itself: an image whose key is half like the mean key gets
half of the change. And the penalty that keeps other answers is the divergence on images of other classes.

Sources: Meng et al. 2022 (2202.05262) and 2023 (2210.07229).
"""

from dataclasses import asdict, dataclass
from typing import Any, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.editing.edited_runs import EditedRuns, block_of
from prisma.editing.keys import covariance_name, key_site, tokens_of
from prisma.editing.rank_one import Covariance, least_change
from prisma.editing.request import Request
from prisma.editing.value import optimal_value
from prisma.editing.weight_edit import LowRank, WeightEdit, source_of
from prisma.numbers import exact

RIDGE = 1.0
"""The default ridge here: keys of one class are alike, and with a small ridge an edit fits those that it is given."""


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


class KeySettings(TypedDict, total=False):
    """Where the keys of an edit are, and how far it may go.

    Attributes:
        layer: whose MLP; the last by default. `layer_by_tracing` says where the model holds its information.
        role: at which tokens the keys are: class (by default), object, background or patches (`keys.ROLES`).
        copies: shifted copies of each image, by up to an eighth of its sides, that give keys too; none by default.
        covariance: of the keys of all images at this role; by default of 3,000 of the images given, drawn by the seed.
        ridge: as in `rank_one.least_change`; 1 by default.
        search: how the value is searched.
    """

    layer: int | None
    role: str
    copies: int
    covariance: Covariance | None
    ridge: float
    search: Search


def mean_key(asked: Request, **settings: Unpack[KeySettings]) -> WeightEdit:
    """What is the least change of one MLP that answers the mean key of a class otherwise?

    Args:
        settings: `layer`, `role`, `copies`, `covariance`, `ridge`, `search` of `KeySettings`.
    """
    return _edit("rank-one", asked, 0.0, **settings)


def multi_key(asked: Request, *, old: float | None = None, **settings: Unpack[KeySettings]) -> WeightEdit:
    """The same, where each image (or patch) is a key of its own.

    Args:
        old: how much old keys count against the new ones (`rank_one.least_change`); by default the number of keys.
        settings: as of `mean_key`.
    """
    return _edit("multi-key", asked, old, **settings)


def _edit(
    method: str, asked: Request, old: float | None, *, layer: int | None = None, role: str = "class", copies: int = 0,
    covariance: Covariance | None = None, ridge: float = RIDGE, search: Search = Search(),
) -> WeightEdit:  # fmt: skip
    """The edit, with the defaults of `KeySettings`."""
    model, layer = asked.model, asked.layer(layer)
    tokens_of(model.config, role, len(asked.images), asked.coverage)  # says what is missing of all images
    site, own = key_site(model, layer), asked.own(copies)
    runs = EditedRuns.of(model, own.images, layer)
    keys_KN, start_KM = _keys(runs, role, own.coverage, one=method == "rank-one")
    covariance = asked.covariance(layer, role) if covariance is None else covariance
    covariance.expect_of(covariance_name(site, role), source_of(model), block_of(model, layer).mlp.out.in_features)
    reference = EditedRuns.of(model, asked.others(search.others), layer)
    weight = (0.0 if len(keys_KN) == 1 else float(len(keys_KN))) if old is None else old
    u, unit = least_change(keys_KN, torch.eye(len(keys_KN)), covariance, ridge=ridge, old=weight)
    found = optimal_value(start_KM, _loss(runs, reference, u, unit, asked.target, search), **_steps(search))
    part = LowRank.of(model, f"blocks.{layer}.mlp.out", u, found.change.double().cpu().T @ unit)
    facts = {
        "layer": layer, "role": role, "keys": len(keys_KN), "images": len(own.rows), "copies": copies,
        "ridge": ridge, "old": weight, "search": asdict(search), "losses": list(found.losses),
        "rows": list(own.rows), "covariance": {"of": covariance.of, "n": covariance.n},
    }  # fmt: skip
    return asked.edit(method, [part], facts)


def _keys(runs: EditedRuns, role: str, coverage: Tensor | None, *, one: bool) -> tuple[Tensor, Tensor]:
    """Keys [key, d_mlp] at the tokens of a role, and the answers to them [key, d_model]; or the mean of each."""
    tokens_BT = tokens_of(runs.model.config, role, len(runs.images), coverage).to(runs.images.device)
    keys, answers = runs.keys[tokens_BT], runs.out[tokens_BT]
    return (keys.mean(0, keepdim=True), answers.mean(0, keepdim=True)) if one else (keys, answers)


def _loss(runs: EditedRuns, reference: EditedRuns, u: Tensor, unit: Tensor, target: int, search: Search) -> Any:
    """The loss of wanted changes [key, d_model]."""
    own, far = runs.responses(u, unit), reference.responses(u, unit)
    before = exact(reference.before).log_softmax(-1)

    def loss(changes: Tensor) -> Tensor:
        wanted = -exact(runs.logits(own, changes)).log_softmax(-1)[:, target].mean()
        if not search.kl or not len(before):
            return wanted
        after = exact(reference.logits(far, changes)).log_softmax(-1)
        return wanted + search.kl * F.kl_div(after, before, log_target=True, reduction="batchmean")

    return loss


def _steps(search: Search) -> dict[str, Any]:
    return {name: getattr(search, name) for name in ("steps", "lr", "decay", "clamp", "enough")}
