"""Whether a coder is one of a model: the weights that it was trained on, and the site that it states.

A coder with other weights or of another site computes numbers all the same, and they mean nothing. Weights are compared
by their hash, which is kept as long as they stay as they are. Torch counts changes of a tensor, but not those through
`.data`, and a new tensor may lie where another one was; so the sums of all rows are compared too, which takes an eighth
of the time.
"""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from prisma.checkpoint import weights_hash
from prisma.errors import PrismaError
from prisma.inventory import site_names
from prisma.plain import uncompiled
from prisma.runs import Model
from prisma.sparse.activations import AT, bare
from prisma.sparse.coders import Coder, expect_coder

_HASHES: "WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], str]]" = WeakKeyDictionary()


def hash_of_model(model: nn.Module) -> str:
    """The hash of a model's weights, as a training of a coder writes it down; computed again where they changed."""
    plain = uncompiled(model)
    state = plain.state_dict()
    if any(x.is_inference() for x in state.values()):  # which do not count their changes
        return weights_hash(state)
    now = (*((name, x.data_ptr(), x._version, x.dtype) for name, x in state.items()), _row_sums(state))
    if plain not in _HASHES or _HASHES[plain][0] != now:
        _HASHES[plain] = now, weights_hash(state)
    return _HASHES[plain][1]


def _row_sums(state: Mapping[str, Tensor]) -> bytes:
    """Of every row of every weight."""
    sums = [x.detach().flatten(1).sum(1) if x.ndim > 1 else x.detach().reshape(-1) for x in state.values()]
    by_device: dict[torch.device, list[Tensor]] = {}
    for x in sums:
        by_device.setdefault(x.device, []).append(x.double())
    return b"".join(torch.cat(some).cpu().numpy().tobytes() for some in by_device.values())


def stated_hashes(coder: Coder) -> Mapping[str, Any]:
    """Name of each model that a coder was trained on ("" of a single one) -> the hash of its weights, if known."""
    stated = expect_coder(coder).told.get("model_sha256")
    return stated if isinstance(stated, Mapping) else {}


def stated_hash(coder: Coder, name: str = "") -> str | None:
    """The hash of the weights on which a coder was trained, of a model that is called `name` now ("" of a single one).

    None: the coder does not state it, or does not read a model of this name.
    """
    stated, c = stated_hashes(coder), coder.config
    own, *others = {site.partition(AT)[2] for site in (*c.sites, *([c.target] if c.target else []))}
    if name not in stated and not others and (own == "" or name in ("", own)):
        name = own if own in stated or len(stated) != 1 else next(iter(stated))
    return str(stated[name]) if name in stated else None


def expect_trained_on(coder: Coder, model: nn.Module | Mapping[str, nn.Module], other_model: bool) -> None:
    """Raise PrismaError if a coder says that it was trained on a model with other weights.

    Models of a crosscoder are told apart by their names. The one model of any other coder may have another name now, or
    none, than it had in the training.
    """
    models = model if isinstance(model, Mapping) else {"": model}
    for name, one in models.items():
        if not isinstance(one, nn.Module):  # which is said where it is run
            continue
        wanted = None if other_model else stated_hash(coder, name)
        if wanted is not None and wanted != (here := hash_of_model(one)):
            raise PrismaError(
                f"expected the model that this coder was trained on, with the weights {wanted[:12]}; found one with "
                f"{here[:12]}: to take it all the same, use other_model=True (--other-model)"
            )


def expect_of_site(coder: Coder, model: Model, site: str) -> None:
    """Raise PrismaError if a coder is spliced in at another site of the model than the one that it writes.

    A coder whose file names its site as another library does, or not at all, may be at any site of its width.
    """
    own = bare(coder.config.target or coder.site)
    if own != site and own in site_names(model.config):
        raise PrismaError(f"expected {own}, the site of this coder, to splice it in; found {site}")
