"""Where the parts of a causal language model are, found by one forward over tokens and not by the names of a family.

The blocks are a list of modules (`nn.ModuleList`) of which each is called once, in order, and returns the residual
stream. In a block, the attention is the child whose name or class says so. What a sub-layer writes into the stream is
the output of its last linear map into the stream's width: of `c_proj`, `down_proj`, `fc2`, `dense_4h_to_h` and so on.
So OPT, whose MLP is no module, and Bloom, whose MLP module adds the residual itself, are read like all others.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from prisma.errors import UnsupportedModelError, listed, shown

ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
PROBE = 5  # tokens of the forward by which the parts are found


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The parts of a language model that tracing and editing read and change.

    `attention_out[l]` and `mlp_out[l]` are the linear maps that write what the sub-layers of block l add to the stream.
    """

    model: nn.Module
    embedding: nn.Module
    blocks: tuple[nn.Module, ...]
    attention_out: tuple[nn.Module, ...]
    mlp_out: tuple[nn.Module, ...]
    mlp_names: tuple[str, ...]  # dotted, of `mlp_out`
    d_model: int
    d_mlp: int
    returns_tuple: bool
    starts_late: bool
    """Whether a run may leave out its first blocks, given what they compute."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def table(self) -> Tensor:
        """The embedding of every word [word, number]."""
        return cast(Tensor, self.embedding.weight)

    def parts(self, kind: str) -> tuple[nn.Module, ...]:
        """The modules whose outputs are the states of a kind: `hidden`, `mlp` or `attention`, one for each layer."""
        return {"hidden": self.blocks, "mlp": self.mlp_out, "attention": self.attention_out}[kind]

    @contextmanager
    def from_block(self, start: int, hidden: Tensor | None) -> Iterator[None]:
        """Within, blocks before `start` are not computed: they hand on `hidden`, the input of block `start`."""
        skipped = self.blocks[:start]
        output = (hidden,) if self.returns_tuple else hidden
        before = [vars(block).get("forward") for block in skipped]
        try:
            for block in skipped:
                block.forward = lambda *args, **kwargs: output
            yield
        finally:
            for block, forward in zip(skipped, before, strict=True):
                if forward is None:
                    del block.forward
                else:
                    block.forward = forward


def stream(output: Any) -> Tensor:
    """The tensor that a module returns, alone or first in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def replaced(output: Any, value: Tensor) -> Any:
    """A module's output with another tensor in the place of its first."""
    return (value, *output[1:]) if isinstance(output, tuple) else value


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map with one weight: `nn.Linear`, or `Conv1D`, which holds it transposed."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def sizes(linear: nn.Module) -> tuple[int, int]:
    """The widths that a linear map reads and writes."""
    rows, columns = cast(Tensor, linear.weight).shape
    return (columns, rows) if isinstance(linear, nn.Linear) else (rows, columns)


def anatomy(model: "nn.Module | Anatomy") -> Anatomy:
    """Find the parts of any causal language model of transformers; what was found before is returned as it is.

    Raises:
        UnsupportedModelError: a part is not found; the message says what was looked for, and what there is.
    """
    if isinstance(model, Anatomy):
        return model
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    if not isinstance(embedding, nn.Module):
        raise UnsupportedModelError(
            "expected a causal language model of transformers, with get_input_embeddings(); "
            f"found {type(model).__name__}"
        )
    tokens = torch.arange(PROBE, device=next(model.parameters()).device)[None] % len(cast(Tensor, embedding.weight))
    with evaluating(model):
        lists = _lists(model)
        called, clean = _calls(model, tokens, [block for blocks in lists.values() for block in blocks])
        blocks = _blocks(model, lists, called)
        d_model = called[blocks[0]].shape[-1]
        linears = {part: name for block in blocks for name, part in block.named_modules() if is_linear(part)}
        order = list(_calls(model, tokens, list(linears))[0])
        attention, mlp = zip(*(_sublayers(i, block, order, d_model) for i, block in enumerate(blocks)), strict=True)
        names = {part: name for name, part in model.named_modules()}
        found = Anatomy(
            model, embedding, blocks, attention, mlp, tuple(names[part] for part in mlp), d_model,
            sizes(mlp[0])[0], _returns_tuple(model, tokens, blocks[0]), False,
        )  # fmt: skip
        return Anatomy(**{**vars(found), "starts_late": _starts_late(found, tokens, clean)})


def _lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Lists of modules of one class, those inside of another left out (experts of a block)."""
    every = {name: part for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part)}
    return {name: part for name, part in every.items() if not any(name.startswith(f"{other}.") for other in every)}


def _blocks(
    model: nn.Module, lists: dict[str, nn.ModuleList], called: dict[nn.Module, Tensor]
) -> tuple[nn.Module, ...]:
    def is_stream(blocks: nn.ModuleList) -> bool:
        return all(b in called and called[b].ndim == 3 and called[b].shape[1] == PROBE for b in blocks)

    found = {name: part for name, part in lists.items() if is_stream(part)}
    if not found:
        there = listed([f"{name} ({len(part)} of {type(part[0]).__name__})" for name, part in lists.items()]) or "none"
        raise UnsupportedModelError(
            f"expected a list of blocks (nn.ModuleList), each called once on [batch, token, d_model]; "
            f"found in {type(model).__name__}: {there}"
        )
    return tuple(max(found.values(), key=_weights))


def _weights(blocks: Iterable[nn.Module]) -> int:
    return sum(x.numel() for block in blocks for x in block.parameters())


def _sublayers(layer: int, block: nn.Module, order: list[nn.Module], d_model: int) -> tuple[nn.Module, nn.Module]:
    """The linear maps of a block by which its attention and its MLP write into the stream."""
    children = {name: part for name, part in block.named_children() if any(True for _ in part.parameters())}
    kinds = [f"{name} ({type(part).__name__})" for name, part in children.items()]
    where = f"block {layer}, a {type(block).__name__} of {listed(kinds)}"
    mixers = {
        name: part
        for name, part in children.items()
        if (ATTENTION.search(name) or ATTENTION.search(type(part).__name__)) and any(map(is_linear, part.modules()))
    }
    inside = {part for mixer in mixers.values() for part in mixer.modules()}
    of_block = set(block.modules())
    writes = [part for part in order if part in of_block and sizes(part)[1] == d_model]
    attention, mlp = [p for p in writes if p in inside], [p for p in writes if p not in inside]
    if not mixers or not attention:
        raise UnsupportedModelError(
            f"expected a child whose name or class has 'attn' or 'attention', with a linear map that writes {d_model} "
            f"numbers per token; found {where}"
        )
    experts = [
        name
        for name, part in block.named_modules()
        if part not in inside
        and (isinstance(part, nn.ModuleList) or any(p.ndim > 2 for p in part.parameters(recurse=False)))
    ]
    if not mlp or experts:
        found = f"a mixture of experts ({shown(experts[0])}) in " if experts else ""
        raise UnsupportedModelError(
            "expected one MLP beside the attention, whose last linear map (nn.Linear or Conv1D) writes "
            f"{d_model} numbers per token; found {found}{where}"
        )
    return attention[-1], mlp[-1]


def _calls(model: nn.Module, tokens: Tensor, modules: list[nn.Module]) -> tuple[dict[nn.Module, Tensor], Tensor]:
    """Module -> its output, in the order of the calls, of those that are called once; and the logits."""
    outputs: dict[nn.Module, Tensor] = {}
    again: set[nn.Module] = set()

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if module in outputs:
            again.add(module)
        if isinstance(stream(output), Tensor):
            outputs[module] = stream(output)

    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(_removed(module.register_forward_hook(note)))
        logits = model(input_ids=tokens, use_cache=False).logits
    return {module: output for module, output in outputs.items() if module not in again}, logits


def _returns_tuple(model: nn.Module, tokens: Tensor, block: nn.Module) -> bool:
    kinds: list[bool] = []
    with _removed(block.register_forward_hook(lambda module, inputs, output: kinds.append(isinstance(output, tuple)))):
        model(input_ids=tokens, use_cache=False)
    return kinds[0]


def _starts_late(found: Anatomy, tokens: Tensor, clean: Tensor) -> bool:
    """Whether leaving out the first half of the blocks, given what they computed, changes nothing."""
    half = len(found.blocks) // 2
    if half == 0:
        return True
    before = _calls(found.model, tokens, [found.blocks[half - 1]])[0][found.blocks[half - 1]]
    try:
        with found.from_block(half, before):
            again = found.model(input_ids=tokens, use_cache=False).logits
    except Exception:  # of any kind: a model that needs more of its first blocks than the stream
        return False
    return torch.equal(again, clean)


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and gradients; the model's mode is what it was afterwards."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
