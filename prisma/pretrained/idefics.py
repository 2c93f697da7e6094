"""Reading and editing transformers' IDEFICS, a Flamingo: images are read by a language model through gated attention.

It is no ViT, so it stays what it is, and raw hooks offer its intermediates: those that a module receives or returns,
and that can therefore be edited exactly. The vision tower's sites have the names that they have in a ViT of ours.

Sources: Alayrac et al. 2204.14198 (Flamingo); Laurençon et al. 2306.16527 (IDEFICS).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prisma.edits import Edit, as_edit
from prisma.errors import PrismaError
from prisma.pretrained.family import full_name
from prisma.pretrained.rules import UnsupportedModelError
from prisma.runs import Edits
from prisma.sites import HEADS, NEURONS, RESIDUAL, Cache, matching

CLASSES = tuple(
    f"transformers.models.idefics.modeling_idefics.{name}" for name in ("IdeficsModel", "IdeficsForVisionText2Text")
)
GATE = ("gate",)  # one number for a layer, or [batch, token, d_model] where the model has a gate for each component


@dataclass(frozen=True)
class Place:
    """Where a site is: what the module at `path` is given, or what it returns."""

    path: str  # in an IdeficsModel; {l} is the layer
    axes: tuple[str, ...]
    given: bool = False


def _places() -> dict[str, Place]:
    """Site -> place. The axis `batch` counts images in the vision tower and prompts in the language model."""
    vision, cross, text = "vision_model.encoder.layers.{l}", "gated_cross_attn_layers.{l}", "layers.{l}"
    image_heads = ("batch", "image_token", "head", "d_head")
    return {
        "ln_pre": Place("vision_model.pre_layrnorm", RESIDUAL),
        "blocks.{l}.resid_pre": Place(vision, RESIDUAL, given=True),
        "blocks.{l}.ln1.normalized": Place(f"{vision}.layer_norm1", RESIDUAL),
        **{f"blocks.{{l}}.attn.{x}": Place(f"{vision}.self_attn.{x}_proj", HEADS) for x in "qkv"},
        "blocks.{l}.attn.z": Place(f"{vision}.self_attn.out_proj", HEADS, given=True),
        "blocks.{l}.attn_out": Place(f"{vision}.self_attn.out_proj", RESIDUAL),
        "blocks.{l}.ln2.normalized": Place(f"{vision}.layer_norm2", RESIDUAL),
        "blocks.{l}.mlp.pre": Place(f"{vision}.mlp.fc1", NEURONS),
        "blocks.{l}.mlp.post": Place(f"{vision}.mlp.fc2", NEURONS, given=True),
        "blocks.{l}.mlp_out": Place(f"{vision}.mlp.fc2", RESIDUAL),
        "blocks.{l}.resid_post": Place(vision, RESIDUAL),
        "resampled": Place("perceiver_resampler", ("batch", "latent", "d_model")),
        "cross.{l}.resid_pre": Place(cross, RESIDUAL, given=True),
        "cross.{l}.ln1.normalized": Place(f"{cross}.input_layernorm", RESIDUAL),
        "cross.{l}.attn.v": Place(f"{cross}.cross_attn.v_proj", image_heads),
        "cross.{l}.attn.z": Place(f"{cross}.cross_attn.o_proj", HEADS, given=True),
        "cross.{l}.attn_out": Place(f"{cross}.cross_attn.o_proj", RESIDUAL),  # before the gate, and the mask of images
        "cross.{l}.attn_gate": Place(f"{cross}.act_cross_attn", GATE),
        "cross.{l}.ln2.normalized": Place(f"{cross}.post_attention_layernorm", RESIDUAL),
        "cross.{l}.mlp.post": Place(f"{cross}.mlp.down_proj", NEURONS, given=True),
        "cross.{l}.mlp_out": Place(f"{cross}.mlp.down_proj", RESIDUAL),  # before the gate
        "cross.{l}.mlp_gate": Place(f"{cross}.act_dense", GATE),
        "cross.{l}.resid_post": Place(cross, RESIDUAL),
        "text.{l}.resid_pre": Place(text, RESIDUAL, given=True),
        "text.{l}.attn_out": Place(f"{text}.self_attn.o_proj", RESIDUAL),
        "text.{l}.mlp_out": Place(f"{text}.mlp.down_proj", RESIDUAL),
        "text.{l}.resid_post": Place(text, RESIDUAL),
        "text.ln_final": Place("norm", RESIDUAL),
    }


PLACES: Mapping[str, Place] = _places()


def record(
    model: nn.Module, inputs: Mapping[str, Any], read: str | Iterable[str], edit: Edits | None = None
) -> tuple[Any, Cache]:
    """Run the model once and keep intermediates.

    Args:
        model: an IdeficsModel or IdeficsForVisionText2Text.
        inputs: what its processor gives: `input_ids`, `attention_mask`, `pixel_values`, `image_attention_mask`.
        read: site names or globs: `"cross.*.attn_out"`, `"blocks.*.resid_post"`, `"resampled"`.
        edit: as in `run`.

    Returns:
        what the model returns, and a Cache of live tensors as they were after the edits.

    Raises:
        PrismaError: a model of another class, a site that it does not have (the nearest are offered), or one that these
            inputs do not reach.
    """
    edits: dict[str, tuple[Edit, ...]] = {}
    places = sites(model)
    names = {site for pattern in ([read] if isinstance(read, str) else read) for site in matching(pattern, places)}
    for pattern, value in (edit or {}).items():
        for site in matching(pattern, places):
            edits[site] = (*edits.get(site, ()), *as_edit(value))
    found: dict[str, Tensor] = {}
    wanted = [site for site in places if site in names or site in edits]
    with _hooked(_base(model), {site: places[site] for site in wanted}, edits, found):
        output = model(**inputs)
    if missed := [site for site in wanted if site not in found]:
        raise PrismaError(f"these inputs do not reach {', '.join(missed)}: that part of the model did not run")
    return output, Cache({site: x for site, x in found.items() if site in names})


def run(model: nn.Module, inputs: Mapping[str, Any], edit: Edits | None = None) -> Any:
    """What the model returns in a run with edits: `run(model, inputs, {"cross.*.attn_gate": Zero()}).logits`.

    Raises:
        PrismaError: as in `record`.
    """
    return record(model, inputs, (), edit)[0]


def sites(model: nn.Module) -> dict[str, Place]:
    """Every site of this model, and where it is. Raises UnsupportedModelError if the model is of another class."""
    if full_name(model) not in CLASSES:
        raise UnsupportedModelError(f"expected an IDEFICS model of transformers, found {full_name(model)}")
    base, found = _base(model), {}
    modules = dict(base.named_modules())
    for site, place in PLACES.items():
        layers = modules.get(place.path.split(".{l}")[0])
        for layer in range(len(layers) if "{l}" in place.path and isinstance(layers, nn.ModuleList) else 1):
            path = place.path.replace("{l}", str(layer))
            if path in modules:  # not every model has a resampler
                found[site.replace("{l}", str(layer))] = Place(path, place.axes, place.given)
    return found


def _base(model: nn.Module) -> nn.Module:
    """The IdeficsModel in it, or itself."""
    return model.get_submodule("model") if full_name(model) == CLASSES[1] else model


@contextmanager
def _hooked(
    base: nn.Module, places: Mapping[str, Place], edits: Mapping[str, tuple[Edit, ...]], found: dict[str, Tensor]
) -> Iterator[None]:
    """Hooks at these places, which apply the edits and note the values, while the block lasts."""
    with ExitStack() as stack:
        for site, place in places.items():
            module = base.get_submodule(place.path)
            tap = _tap(site, place, _heads(base, place), edits.get(site, ()), found)
            if place.given:
                handle = module.register_forward_pre_hook(_on_input(tap))
            else:
                handle = module.register_forward_hook(_on_output(tap))
            stack.callback(handle.remove)
        yield


def _tap(
    site: str, place: Place, heads: int, edits: tuple[Edit, ...], found: dict[str, Tensor]
) -> Callable[[Tensor], Tensor]:
    def tap(x: Tensor) -> Tensor:
        value = x.unflatten(-1, (heads, -1)) if heads else x
        for edit in edits:
            value = edit(value, RESIDUAL if place.axes == GATE and value.ndim > 1 else place.axes)
        found[site] = value
        return value.flatten(-2) if heads else value

    return tap


def _heads(base: nn.Module, place: Place) -> int:
    """How many heads lie side by side at this place; 0 if none do."""
    attention: Any = base.get_submodule(place.path.rpartition(".")[0])
    return attention.num_heads if "head" in place.axes else 0


def _on_input(tap: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    return lambda _, given: (tap(given[0]), *given[1:])


def _on_output(tap: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda _, __, returned: tap(returned)
