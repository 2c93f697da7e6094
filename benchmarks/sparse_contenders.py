"""Who trains sparse coders in `benchmarks.sparse`: Prisma's own steps, and the libraries whose coders people train.

Every contender takes the same tokens, and the same learning rate for Adam. What else it does is its own: how it begins,
what it minimises, whether the rate rises and falls.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.sparse.coders import CoderConfig
from prisma.sparse.learner import Learner, Plan

LR = 1e-3
NEVER = 10_000_000
"""Tokens after which a latent counts as dead, where the time of a step is measured: no contender revives any then."""


@dataclass(frozen=True)
class Size:
    """What is trained: width of the tokens, number of latents, how many are active."""

    kind: str
    d: int
    m: int
    k: int


@dataclass(frozen=True)
class Training:
    """A coder in training.

    Attributes:
        step: one update on tokens [n, d].
        code: tokens [n, d] -> (their reconstruction [n, d], bool [n, m]: which latents are active).
        scheduled: whether its steps depend on how many there will be.
    """

    step: Callable[[Tensor], object]
    code: Callable[[Tensor], tuple[Tensor, Tensor]]
    scheduled: bool = False


def ours(size: Size, steps: int, device: torch.device, dead_after: int) -> Training:
    """Prisma's own steps."""
    learner = Learner(Plan(CoderConfig(size.kind, size.d, size.m, size.k), 0, LR, None, dead_after), steps, device)
    newest = list[Tensor]()

    def step(x: Tensor) -> None:
        newest[:] = [x]
        learner.step(x, x)

    def code(x: Tensor) -> tuple[Tensor, Tensor]:
        learner.calibrate(newest[0])
        z = learner.coder.encode(x)
        return learner.coder.decode(z), z != 0

    return Training(step, code, scheduled=True)


def sae_lens(size: Size, steps: int, device: torch.device, dead_after: int) -> Training:
    """The training coder of sae-lens, with its own step. Its trainer revives what 1,000 steps did not use: nothing."""
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    of_kind = {
        "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
        "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    }
    coder_class, config_class = of_kind[size.kind]
    sae = coder_class(config_class(d_in=size.d, d_sae=size.m, k=size.k, device=str(device)))
    optimizer = torch.optim.Adam(sae.parameters(), lr=LR, fused=True)
    dead, taken = torch.zeros(size.m, dtype=torch.bool, device=device), [0]

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        given = {
            "sae_in": x, "coefficients": {}, "dead_neuron_mask": dead, "n_training_steps": taken[0],
            "is_logging_step": False,
        }  # fmt: skip
        known = TrainStepInput.__dataclass_fields__
        sae.training_forward_pass(
            TrainStepInput(**{name: value for name, value in given.items() if name in known})
        ).loss.backward()
        optimizer.step()
        taken[0] += 1

    def code(x: Tensor) -> tuple[Tensor, Tensor]:
        z = sae.encode(x)
        return sae.decode(z), z.to_dense() != 0

    return Training(step, code)


def sparsify(size: Size, steps: int, device: torch.device, dead_after: int) -> Training:
    """The coder of sparsify with Adam; it has no batchtopk, and revives nothing by default."""
    if size.kind != "topk":
        raise NotImplementedError
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(size.d, SparseCoderConfig(num_latents=size.m, k=size.k), device=device)
    optimizer = torch.optim.Adam(coder.parameters(), lr=LR, fused=True)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        coder(x).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        coder.set_decoder_norm_to_unit_norm()

    def code(x: Tensor) -> tuple[Tensor, Tensor]:
        found = coder(x)
        z = torch.zeros(len(x), size.m, device=device).scatter(1, found.latent_indices, found.latent_acts)
        return found.sae_out, z != 0

    return Training(step, code)


def overcomplete(size: Size, steps: int, device: torch.device, dead_after: int) -> Training:
    """The coder of overcomplete with Adam; its batchtopk keeps k in a whole batch, so it gets k for each token."""
    import matplotlib
    import matplotlib.cm as cm

    if not hasattr(cm, "get_cmap"):  # which it imports, and current versions lack
        cm.get_cmap = matplotlib.colormaps.get_cmap  # type: ignore[attr-defined]
    from overcomplete.sae import BatchTopKSAE, TopKSAE

    if size.kind == "topk":
        sae = TopKSAE(size.d, size.m, top_k=size.k, device=str(device))
    else:
        sae = BatchTopKSAE(size.d, size.m, top_k=size.k, device=str(device))
    optimizer = torch.optim.Adam(sae.parameters(), lr=LR, fused=True)

    def step(x: Tensor) -> None:
        if size.kind == "batchtopk":
            sae.top_k = size.k * len(x)
        sae.train()
        optimizer.zero_grad()
        (sae(x)[-1] - x).square().mean().backward()
        optimizer.step()

    def code(x: Tensor) -> tuple[Tensor, Tensor]:
        sae.eval()
        _, z, guess = sae(x)
        return guess, z != 0

    return Training(step, code)


Contender = Callable[[Size, int, torch.device, int], Training]
"""(size, steps, device, tokens after which a latent is dead) -> a coder before its first step."""
CONTENDERS: Mapping[str, Contender] = {
    "prisma": ours,
    "sae-lens": sae_lens,
    "sparsify": sparsify,
    "overcomplete": overcomplete,
}


def there(name: str, kind: str, device: torch.device) -> bool:
    """Whether a contender is installed and has this kind: it trains two steps."""
    try:
        training = CONTENDERS[name](Size(kind, 4, 8, 2), 2, device, NEVER)
        for x in torch.randn(2, 16, 4, device=device):
            training.step(x)
        with torch.no_grad():
            training.code(x)
    except (ImportError, NotImplementedError) as error:
        print(f"left out: {name} {kind} ({type(error).__name__} {error})")
        return False
    return True
