"""Test-time registers: an empty token takes over what register neurons do, in a model that was trained without one.

A token of zeros is added after the model's prefix. At every register neuron, the added token receives the patches'
activation of the largest size, with its sign, and the patches receive 0; the class token keeps its own. Nothing is
trained. If these neurons cause the artifacts, the patches' norms are ordinary now, and the added token's is not.

Controls are always beside it: the added token alone, and as many random neurons of the same layers, moved likewise.

Source: Jiang et al. 2506.08010.

Shapes: B image, W way, T token, L layer, C class.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from prisma.analysis.attention.register_neurons import Neurons, RegisterNeurons
from prisma.analysis.border import guarded, record
from prisma.analysis.result import Result
from prisma.batching import inputs_per_pass
from prisma.edits import Edit
from prisma.errors import PrismaError, quoted
from prisma.numbers import exact
from prisma.runs import Edits
from prisma.view.figures.charts import draw_stages
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WAYS = ("as it is", "empty token", "register neurons", "random neurons")


@dataclass(frozen=True, eq=False, repr=False)
class MoveToRegisters(Edit):
    """On `mlp.post`: the patches' largest activation of these neurons goes to some registers, and patches get 0.

    Attributes:
        neurons: their indices.
        first, end: the registers are the tokens from `first` to before `end`, and patches begin at `end`.
    """

    neurons: tuple[int, ...]
    first: int
    end: int

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        x, chosen = x.clone(), list(self.neurons)
        patches = x[:, self.end :, chosen]
        x[:, self.first : self.end, chosen] = patches.gather(1, patches.abs().argmax(1, keepdim=True))
        x[:, self.end :, chosen] = 0
        return x


def with_registers(model: ViT, n: int = 1) -> ViT:
    """A copy of a model with n more tokens of zeros after its prefix, to be used with `move_to_registers`.

    Raises:
        PrismaError: n below 1, or a model whose readout or attention would see the new tokens as patches: positions in
            a bias of the scores, divided attention, a mean that includes prefix tokens.
    """
    config = model.config
    if n < 1:
        raise PrismaError(f"expected to add at least one register; found {n}")
    seen = {
        "a bias of the scores, which has no row for a new token": config.score_bias,
        "divided attention, which has no registers": config.attention == "divided",
        "a readout that includes the prefix tokens": config.pool_prefix,
    }
    for why in (why for why, so in seen.items() if so):
        raise PrismaError(f"expected a model to which an empty token can be added; found {why}")
    added = copy.deepcopy(model)
    added.config = added.embed.config = replace(config, registers=config.registers + n)
    zeros = model.embed.prefix.new_zeros(n, config.d_model)
    added.embed.prefix = nn.Parameter(torch.cat([model.embed.prefix.detach(), zeros]))
    added.readout.pooled = slice(added.config.n_prefix, None)
    return added


def move_to_registers(model: ViT, neurons: Iterable[tuple[int, int]], n: int = 1) -> Edits:
    """The edits that move neurons, given as (layer, neuron), from the patches to the last n prefix tokens.

    They are for the model of `with_registers`, in any run: `prisma.run(added, images, move_to_registers(added, top))`.

    Raises:
        PrismaError: a layer or neuron that the model does not have, or fewer than n registers.
    """
    config = model.config
    if not 1 <= n <= config.registers:
        raise PrismaError(f"expected 1 to {config.registers} of the model's registers; found {n}: use with_registers")
    by_layer: dict[int, list[int]] = defaultdict(list)
    for layer, neuron in neurons:
        if not (0 <= layer < config.n_layers and 0 <= neuron < config.d_mlp):
            raise PrismaError(
                f"expected a layer below {config.n_layers} and a neuron below {config.d_mlp}; found ({layer}, {neuron})"
            )
        by_layer[layer].append(neuron)
    return {
        f"blocks.{layer}.mlp.post": MoveToRegisters(tuple(some), config.n_prefix - n, config.n_prefix)
        for layer, some in by_layer.items()
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class TestTimeRegisters(Result):
    """What the patches, attention and logits become when register neurons are moved to an added token.

    The way `register neurons` explains the artifacts if `artifacts` is near 0 there and stays where it was with
    `random neurons`; it harms nothing if the logits stay. `metadata["neurons"]` are those that were moved.
    """

    __test__: ClassVar[bool] = False  # its name is not that of a test

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "artifacts": ("image", "way"),
        "largest": ("image", "way"),
        "on_artifacts": ("image", "way", "layer"),
        "on_added": ("image", "way", "layer"),
        "logits": ("image", "way", "class"),
        "norms": ("image", "way", "patch"),
    }
    artifacts: Tensor  # the share of the image's patches whose norm is above the cutoff, after the same stage
    largest: Tensor  # the largest norm of a patch there, over the cutoff
    on_artifacts: Tensor  # the attention that patches receive which are artifacts as it is; mean over queries, heads
    on_added: Tensor  # the attention that the added tokens receive
    logits: Tensor
    norms: Tensor | None = None  # of the patches, after the same stage, in units of the stream

    def plot(self, array: str | None = None) -> "Figure":
        """By default the attention that artifacts receive, and the added tokens, by layer and way."""
        if array is not None:
            return super().plot(array)
        lines = {f"artifacts, {way}": self.on_artifacts[:, i] for i, way in enumerate(WAYS)}
        lines |= {f"added token, {way}": self.on_added[:, i] for i, way in enumerate(WAYS) if way in WAYS[1:3]}
        return draw_stages(lines, axis="layer", title="test-time registers: attention received")


@guarded
@torch.no_grad()
def test_time_registers(
    model: ViT,
    images: Tensor,
    found: RegisterNeurons,
    *,
    n: int = 10,
    registers: int = 1,
    seed: int = 0,
    batch: int | None = None,
) -> TestTimeRegisters:
    """Do the register neurons make the artifacts, and does an added token take them over?

    Args:
        images: [image, channel, height, width]; others than those on which the neurons were found.
        found: of the same model; its stage and cutoff say what an artifact is.
        n: how many of its neurons are moved: the top n. Random ones are as many others of each of their layers, or all
            that there are (`metadata["random"]`).
        registers: how many empty tokens are added.
        seed: of the random neurons.
        batch: images in one pass.

    Returns:
        `artifacts`, `largest` [image, way], `on_artifacts`, `on_added` [image, way, layer], `logits` [image, way,
        class] and `norms` [image, way, patch] for the ways of `WAYS`.

    Raises:
        PrismaError: neurons that the model does not have, or a model to which no token can be added (`with_registers`).

    Source: Jiang et al. 2506.08010.
    """
    if not isinstance(found, RegisterNeurons):
        raise PrismaError(f"expected the result of register_neurons; found {quoted(found)}")
    if not len(images):
        raise PrismaError("expected at least one image; found none")
    chosen = found.top(n)
    added = with_registers(model, registers)
    drawn = _random_like(chosen, model.config.d_mlp, torch.Generator().manual_seed(seed))
    moved = ((added, move_to_registers(added, neurons, registers)) for neurons in (chosen, drawn))
    runs: list[tuple[ViT, Edits]] = [(model, {}), (added, {}), *moved]
    stage, cutoff = found.metadata["stage"], found.metadata["cutoff"]
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for some in images.split(inputs_per_pass(added, batch)):
        ways = [_Way.of(run, some, edits, stage, model.config.n_prefix) for run, edits in runs]
        norms_BWP = torch.stack([way.norms for way in ways], 1)
        outlying_BP = norms_BWP[:, 0] > cutoff
        received_BWLP = torch.stack([way.received for way in ways], 1)
        parts["artifacts"].append((norms_BWP > cutoff).to(norms_BWP).mean(2))
        parts["largest"].append(norms_BWP.amax(2) / cutoff)
        parts["on_artifacts"].append((received_BWLP * outlying_BP[:, None, None]).sum(-1))
        parts["on_added"].append(torch.stack([way.added for way in ways], 1))
        parts["norms"].append(norms_BWP)
        parts["logits"].append(torch.stack([way.logits for way in ways], 1))
    metadata = {
        "analysis": "test_time_registers", "neurons": [list(pair) for pair in chosen],
        "random": [list(pair) for pair in drawn], "stage": stage,
        "cutoff": cutoff, "registers": registers, "seed": seed, "ways": list(WAYS),
    }  # fmt: skip
    return TestTimeRegisters(metadata=metadata, **{name: torch.cat(x) for name, x in parts.items()})


@dataclass(frozen=True, eq=False)
class _Way:
    """What one way of running some images gives."""

    norms: Tensor  # [image, patch], in the stage
    received: Tensor  # [image, layer, patch]: the attention that each patch receives, mean over queries and heads
    added: Tensor  # [image, layer]: what the added tokens receive together
    logits: Tensor

    @classmethod
    def of(cls, model: ViT, images: Tensor, edits: Edits, stage: int, n_prefix: int) -> "_Way":
        """`n_prefix` is that of the model to which nothing was added."""
        site = f"blocks.{stage - 1}.resid_post"
        logits, acts = record(model, images, [site, "blocks.*.attn.pattern"], edits)
        received_BLT = acts.stack("attn.pattern").mean((2, 3)).transpose(0, 1)
        first = model.config.n_prefix
        norms = exact(acts[site])[:, first:].norm(dim=-1)
        return cls(norms, received_BLT[..., first:], received_BLT[..., n_prefix:first].sum(-1), logits)


def _random_like(chosen: Neurons, width: int, generator: torch.Generator) -> Neurons:
    """As many neurons of each layer, none of them chosen."""
    drawn: list[tuple[int, int]] = []
    for layer in sorted({layer for layer, _ in chosen}):
        taken = {neuron for at, neuron in chosen if at == layer}
        others = [i for i in torch.randperm(width, generator=generator).tolist() if i not in taken]
        drawn += [(layer, neuron) for neuron in others[: len(taken)]]
    return tuple(drawn)
