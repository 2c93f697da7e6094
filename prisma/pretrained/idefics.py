"""Recording and editing transformers' IDEFICS, a Flamingo: a language model attends to images through gates.

It is not a ViT, so it is not converted. Hooks on its modules give access to intermediates that a module receives or
returns, which can therefore be edited exactly. The sites of the vision tower have the names that they have in a `ViT`.

Sources: Alayrac et al. 2204.14198 (Flamingo); Laurençon et al. 2306.16527 (IDEFICS).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prisma.edits import Edit
from prisma.errors import PrismaError, UnsupportedModelError
from prisma.pretrained.family import full_name
from prisma.runs import Edits, edits_by_site
from prisma.sites import HEADS, NEURONS, RESIDUAL, Cache, matching

CLASSES = tuple(
    f"transformers.models.idefics.modeling_idefics.{name}" for name in ("IdeficsModel", "IdeficsForVisionText2Text")
)
GATE = ("gate",)  # one number for a layer, or [batch, token, d_model] where the model has a gate for each component


@dataclass(frozen=True)
class Place:
    """Where a site is: the input or the output of the module at `path`."""

    path: str  # in an IdeficsModel; {l} is the layer
    axes: tuple[str, ...]
    is_input: bool = False


def _places() -> dict[str, Place]:
    """Site -> place. The axis `batch` is of images in the vision tower and of prompts in the language model."""
    vision, cross, text = "vision_model.encoder.layers.{l}", "gated_cross_attn_layers.{l}", "layers.{l}"
    image_heads = ("batch", "image_token", "head", "d_head")
    return {
        "ln_pre": Place("vision_model.pre_layrnorm", RESIDUAL),
        "blocks.{l}.resid_pre": Place(vision, RESIDUAL, is_input=True),
        "blocks.{l}.ln1.normalized": Place(f"{vision}.layer_norm1", RESIDUAL),
        **{f"blocks.{{l}}.attn.{x}": Place(f"{vision}.self_attn.{x}_proj", HEADS) for x in "qkv"},
        "blocks.{l}.attn.z": Place(f"{vision}.self_attn.out_proj", HEADS, is_input=True),
        "blocks.{l}.attn_out": Place(f"{vision}.self_attn.out_proj", RESIDUAL),
        "blocks.{l}.ln2.normalized": Place(f"{vision}.layer_norm2", RESIDUAL),
        "blocks.{l}.mlp.pre": Place(f"{vision}.mlp.fc1", NEURONS),
        "blocks.{l}.mlp.post": Place(f"{vision}.mlp.fc2", NEURONS, is_input=True),
        "blocks.{l}.mlp_out": Place(f"{vision}.mlp.fc2", RESIDUAL),
        "blocks.{l}.resid_post": Place(vision, RESIDUAL),
        "resampled": Place("perceiver_resampler", ("batch", "latent", "d_model")),
        "cross.{l}.resid_pre": Place(cross, RESIDUAL, is_input=True),
        "cross.{l}.ln1.normalized": Place(f"{cross}.input_layernorm", RESIDUAL),
        "cross.{l}.attn.v": Place(f"{cross}.cross_attn.v_proj", image_heads),
        "cross.{l}.attn.z": Place(f"{cross}.cross_attn.o_proj", HEADS, is_input=True),
        "cross.{l}.attn_out": Place(f"{cross}.cross_attn.o_proj", RESIDUAL),  # before the gate, and the mask of images
        "cross.{l}.attn_gate": Place(f"{cross}.act_cross_attn", GATE),
        "cross.{l}.ln2.normalized": Place(f"{cross}.post_attention_layernorm", RESIDUAL),
        "cross.{l}.mlp.post": Place(f"{cross}.mlp.down_proj", NEURONS, is_input=True),
        "cross.{l}.mlp_out": Place(f"{cross}.mlp.down_proj", RESIDUAL),  # before the gate
        "cross.{l}.mlp_gate": Place(f"{cross}.act_dense", GATE),
        "cross.{l}.resid_post": Place(cross, RESIDUAL),
        "text.{l}.resid_pre": Place(text, RESIDUAL, is_input=True),
        "text.{l}.attn_out": Place(f"{text}.self_attn.o_proj", RESIDUAL),
        "text.{l}.mlp_out": Place(f"{text}.mlp.down_proj", RESIDUAL),
        "text.{l}.resid_post": Place(text, RESIDUAL),
        "text.ln_final": Place("norm", RESIDUAL),
    }


PLACES: Mapping[str, Place] = _places()


def record(
    model: nn.Module, inputs: Mapping[str, Any], read: str | Iterable[str], edit: Edits | None = None
) -> tuple[Any, Cache]:
    """Run the model once and return its output and the intermediates asked for.

    Args:
        model: an IdeficsModel or IdeficsForVisionText2Text.
        inputs: of its processor: `input_ids`, `attention_mask`, `pixel_values`, `image_attention_mask`.
        read: site names or globs: `"cross.*.attn_out"`, `"blocks.*.resid_post"`, `"resampled"`.
        edit: as in `run`.

    Returns:
        the model's output, and a Cache of tensors after the edits, which keep their gradient graph.

    Raises:
        PrismaError: the model has another class, it does not have a site (the message lists the nearest), or a site is
            in a part that did not run for these inputs.
    """
    places = sites(model)
    names = {site for pattern in ([read] if isinstance(read, str) else read) for site in matching(pattern, places)}
    edits = edits_by_site(edit or {}, places)
    found: dict[str, Tensor] = {}
    wanted = [site for site in places if site in names or site in edits]
    with _hooked(_base(model), {site: places[site] for site in wanted}, edits, found):
        output = model(**inputs)
    if missed := [site for site in wanted if site not in found]:
        raise PrismaError(
            f"expected inputs that reach {', '.join(missed)}; found that this part of the model did not run"
        )
    return output, Cache({site: x for site, x in found.items() if site in names})


def run(model: nn.Module, inputs: Mapping[str, Any], edit: Edits | None = None) -> Any:
    """The model's output in a run with edits: `run(model, inputs, {"cross.*.attn_gate": Zero()}).logits`.

    Raises:
        PrismaError: as in `record`.
    """
    return record(model, inputs, (), edit)[0]


def sites(model: nn.Module) -> dict[str, Place]:
    """Every site of this model, and where it is. Raises UnsupportedModelError if the model has another class."""
    if full_name(model) not in CLASSES:
        raise UnsupportedModelError(f"expected an IDEFICS model of transformers; found {full_name(model)}")
    base, found = _base(model), {}
    modules = dict(base.named_modules())
    for site, place in PLACES.items():
        layers = modules.get(place.path.split(".{l}")[0])
        for layer in range(len(layers) if "{l}" in place.path and isinstance(layers, nn.ModuleList) else 1):
            path = place.path.replace("{l}", str(layer))
            if path in modules:  # some models have no resampler
                found[site.replace("{l}", str(layer))] = Place(path, place.axes, place.is_input)
    return found


def _base(model: nn.Module) -> nn.Module:
    """The IdeficsModel inside the model, or the model itself."""
    return model.get_submodule("model") if full_name(model) == CLASSES[1] else model


@contextmanager
def _hooked(
    base: nn.Module, places: Mapping[str, Place], edits: Mapping[str, tuple[Edit, ...]], found: dict[str, Tensor]
) -> Iterator[None]:
    """Hooks at these places that apply the edits and put the values into `found`, while the block lasts."""
    with ExitStack() as stack:
        for site, place in places.items():
            module = base.get_submodule(place.path)
            tap = _tap(site, place, _heads(base, place), edits.get(site, ()), found)
            if place.is_input:
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
    """The number of heads that are joined in the last axis at this place; 0 if it has no heads."""
    attention: Any = base.get_submodule(place.path.rpartition(".")[0])
    return attention.num_heads if "head" in place.axes else 0


def _on_input(tap: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    return lambda _, inputs: (tap(inputs[0]), *inputs[1:])


def _on_output(tap: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda _, __, output: tap(output)
