"""Opening open_clip's pairs: `open_clip/NAME[:TAG]` or `ORG/NAME`, a folder that open_clip saved, a live module."""

import copy
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from prisma.data.transform import Transform
from prisma.errors import PrismaError, nearest
from prisma.pretrained.calls import quiet, sentences
from prisma.pretrained.families import family_of, text_family_of
from prisma.pretrained.opened import ImageSize, Opened
from prisma.pretrained.rules import UnsupportedModelError

CONFIG = "open_clip_config.json"
OWN_VOCABULARY = 49_408  # tokens that the tokenizer which comes with the package has


@dataclass(frozen=True)
class Tokenizer:
    """Prompts -> token ids [prompt, context], by open_clip's own tokenizer, which is made when it is first needed."""

    make: Callable[[], Any]
    context: int

    @cached_property
    def theirs(self) -> Any:
        with sentences("the tokenizer, whose files belong in the model's folder or in the Hub's cache,"):
            return self.make()

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Raises PrismaError: no tokenizer to be had, or a prompt is longer than the context."""
        for prompt in prompts:
            if (found := self.length(prompt)) > self.context:
                raise PrismaError(
                    f"expected prompts of at most {self.context} tokens, their start and end included, "
                    f"found {found} in {prompt[:40]!r}"
                )
        return self.theirs(list(prompts), context_length=self.context)

    def length(self, prompt: str) -> int:
        """Tokens of a prompt that nobody cuts, start and end included."""
        if hasattr(self.theirs, "encode"):  # the tokenizer of the package: start and end come later
            return len(self.theirs.encode(prompt)) + 2
        inner, text = self.theirs.tokenizer, self.theirs.clean_fn(prompt)
        if self.theirs.tokenizer_mode == "clips":  # start, end and class come later
            return len(inner(text, add_special_tokens=False).input_ids) + 3
        return len(inner(text).input_ids)


def open_ref(ref: str, revision: str | None = None, image_size: ImageSize = None) -> Opened:
    """`ViT-B-32:laion2b_s34b_b79k`: weights from the Hub or its cache. Without a tag, the first that open_clip lists.

    `ORG/NAME` is a repository of the Hub that holds an open_clip model.

    Raises:
        PrismaError: no such name or tag (the nearest are offered), or no weights to be had.
        UnsupportedModelError: the image tower cannot be had exactly.
    """
    import open_clip

    if revision is not None:
        raise PrismaError(f"open_clip's weights are chosen by tag, open_clip/NAME:TAG; found revision={revision!r}")
    if "/" in ref:
        with sentences(f"open_clip/{ref}"):
            model = open_clip.create_model(f"hf-hub:{ref}", force_image_size=image_size, require_pretrained=True)
        return _opened(model, partial(open_clip.get_tokenizer, f"hf-hub:{ref}"))
    name, _, tag = ref.partition(":")
    if name not in open_clip.list_models():
        raise PrismaError(f"open_clip has no model {name!r}; the nearest: {nearest(name, open_clip.list_models())}")
    if "hf_model_name" not in open_clip.get_model_config(name)["text_cfg"]:  # whose outline itself is at the Hub
        _expect_readable(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tags:
        raise PrismaError(
            f"open_clip publishes no weights of {name}; a module of it with weights can be loaded as it is"
        )
    tag = tag or tags[0]
    published = open_clip.get_pretrained_cfg(name, tag)
    if not published:
        raise PrismaError(f"open_clip has no weights {tag!r} of {name}; the nearest: {nearest(tag, tags)}")
    with sentences(f"open_clip/{name}:{tag}"):
        model = open_clip.create_model(
            name,
            tag,
            force_image_size=image_size,
            force_quick_gelu=published.get("quick_gelu", False),  # which the weights know, and the name may not
            require_pretrained=True,
        )
    return _opened(model, partial(open_clip.get_tokenizer, name))


def open_folder(folder: Path, image_size: ImageSize = None) -> Opened:
    """A folder with `open_clip_config.json` and safetensors weights, as open_clip saves a model.

    Raises:
        PrismaError: no such configuration or weights, or they do not fit each other.
        UnsupportedModelError: the image tower cannot be had exactly.
    """
    import open_clip

    _expect_config(folder / CONFIG)
    if not list(folder.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth")))
        raise PrismaError(
            f"expected safetensors weights in {folder}, found {found or 'none'}; "
            "other formats are pickles, which can run code when they are opened"
        )
    where = f"local-dir:{folder}"
    with sentences(str(folder)):
        model = open_clip.create_model(where, force_image_size=image_size, require_pretrained=True)
    return _opened(model, partial(open_clip.get_tokenizer, where))


def of_module(module: nn.Module, image_size: ImageSize = None) -> Opened:
    """A live pair or image tower; with `image_size`, a copy of it that open_clip's code resized.

    A module does not say which tokenizer it was trained with; a vocabulary as large as open_clip's own stands for that.
    """
    if image_size is not None or module.training:
        module = copy.deepcopy(module)  # the caller's stays as it is
    if image_size is not None:
        _resize(getattr(module, "visual", module), image_size)
    return _opened(module, None)


def _own_tokenizer() -> Any:
    import open_clip

    return open_clip.SimpleTokenizer()


def _resize(visual: Any, image_size: int | tuple[int, int]) -> None:
    """What open_clip does when it loads weights into a model of another size."""
    from open_clip.model import resize_pos_embed

    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if hasattr(visual, "set_input_size"):
        visual.set_input_size(sides)
        return
    state = {"visual.positional_embedding": visual.positional_embedding.detach()}
    old = visual.grid_size
    visual.image_size = sides
    visual.grid_size = tuple(side // patch for side, patch in zip(sides, visual.patch_size, strict=True))
    if old[0] != old[1]:
        raise PrismaError(f"open_clip resamples the positions of square images only; found a grid of {old}")
    resize_pos_embed(state, SimpleNamespace(visual=visual))
    visual.positional_embedding = nn.Parameter(state["visual.positional_embedding"])


def _expect_config(path: Path) -> None:
    try:
        model = json.loads(path.read_text())["model_cfg"]
        known = isinstance(model["vision_cfg"], dict) and isinstance(model["text_cfg"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise PrismaError(f"expected model_cfg with vision_cfg and text_cfg in {path}, found none")


def _expect_readable(name: str) -> None:
    """Before anything is downloaded: the outline of a model, without weights."""
    import open_clip

    with torch.device("meta"), quiet():
        visual = open_clip.create_model(name, load_weights=False, device="meta").visual
    family_of(visual).read(visual)


def _opened(model: Any, tokenizer: Callable[[], Any] | None) -> Opened:
    visual = getattr(model, "visual", model)
    precisions = sorted({str(x.dtype) for x in model.parameters() if x.is_floating_point()})
    if len(precisions) > 1:
        raise UnsupportedModelError(
            f"expected weights of one precision, found {' and '.join(precisions)}; cast the module to one"
        )
    size = family_of(visual).read(visual).config.image_sides  # type: ignore[union-attr]
    text, pair = _text(model), {}
    if text is not None:
        if tokenizer is None and model.vocab_size == OWN_VOCABULARY:
            tokenizer = _own_tokenizer
        pair = {
            "tokenize": Tokenizer(tokenizer or _no_tokenizer, model.context_length),
            "logit_scale": model.logit_scale.exp().item(),
            "logit_bias": 0.0 if model.logit_bias is None else model.logit_bias.item(),
        }
    return Opened(visual.eval(), _transform(visual, size), text=text, pair=pair)


def _no_tokenizer() -> Any:
    raise PrismaError(
        "expected a vocabulary as large as that of open_clip's own tokenizer, since a live module does not say which "
        "it was trained with; found another: load it by name or from a folder"
    )


def _text(model: Any) -> nn.Module | None:
    """The text tower, or the pair that holds its parts; None, and a warning, if it cannot be had exactly."""
    if not hasattr(model, "logit_scale"):
        return None
    text = getattr(model, "text", model)
    try:
        text_family_of(text).read(text)
    except UnsupportedModelError as error:
        warnings.warn(f"the image tower is loaded without its text tower: {error}", stacklevel=2)
        return None
    return text.eval()


def _transform(visual: Any, size: tuple[int, int]) -> Transform | None:
    """What open_clip's evaluation transform does; None where the module does not say, or where it pads."""
    known = getattr(visual, "preprocess_cfg", None)
    if not known:
        return None
    if known["resize_mode"] == "squash":
        shortest = None
    elif known["resize_mode"] == "shortest" and size[0] == size[1]:
        shortest = size[0]
    else:
        return None
    interpolation = "bilinear" if known["interpolation"] == "bilinear" else "bicubic"
    return Transform(size, tuple(known["mean"]), tuple(known["std"]), shortest, interpolation=interpolation)
