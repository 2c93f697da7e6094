"""Loading open_clip's pairs: `open_clip/NAME[:TAG]` or `open_clip/ORG/NAME`, a folder that open_clip saved, or a live
module.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from prisma.data.transform import Transform
from prisma.downloads import download, download_if_there, from_the_hub
from prisma.errors import PrismaError, UnsupportedModelError, nearest, warn
from prisma.files import read_json
from prisma.pretrained.families import family_of, text_family_of
from prisma.pretrained.library_calls import library_errors, quiet
from prisma.pretrained.sizes import expect_image_size, expect_sizes, without_values
from prisma.pretrained.source import ImageSize, SourceModel
from prisma.pretrained.twin import twin
from prisma.pretrained.weights import NO_PICKLES, Weights, weights_in, weights_of

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
"""Names of weights in a folder of open_clip."""
OWN_VOCABULARY = 49_408  # tokens of the tokenizer that comes with the package


@dataclass(frozen=True)
class Tokenizer:
    """Prompts -> token ids [prompt, context], by open_clip's own tokenizer, which is loaded when it is first needed."""

    load: Callable[[], Any]
    context: int

    @cached_property
    def theirs(self) -> Any:
        with library_errors("the tokenizer, whose files belong in the model's folder or in the Hub's cache,", hub=True):
            return self.load()

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Raises PrismaError: the tokenizer could not be loaded, or a prompt is longer than the context."""
        for prompt in prompts:
            if (found := self.length(prompt)) > self.context:
                raise PrismaError(
                    f"expected prompts of at most {self.context} tokens, including the start and end tokens; "
                    f"found {found} in {prompt[:40]!r}"
                )
        return self.theirs(list(prompts), context_length=self.context)

    def length(self, prompt: str) -> int:
        """The number of tokens of a prompt before it is cut to the context, including the start and end tokens."""
        if hasattr(self.theirs, "encode"):  # the tokenizer of the package adds start and end later
            return len(self.theirs.encode(prompt)) + 2
        inner, text = self.theirs.tokenizer, self.theirs.clean_fn(prompt)
        if self.theirs.tokenizer_mode == "clips":  # it adds start, end and class later
            return len(inner(text, add_special_tokens=False).input_ids) + 3
        return len(inner(text).input_ids)


def load_name(ref: str, revision: str | None = None, image_size: ImageSize = None) -> SourceModel:
    """`ViT-B-32:laion2b_s34b_b79k`: weights from the Hub or its cache; without a tag, the first that open_clip lists.

    `ORG/NAME` is a repository on the Hub with an open_clip model.

    Raises:
        PrismaError: there is no such name or tag (the message lists the nearest), or the weights are not available.
        UnsupportedModelError: the image tower cannot be converted exactly.
    """
    import open_clip

    if revision is not None:
        raise PrismaError(f"open_clip's weights are chosen by tag, as open_clip/NAME:TAG; found revision={revision!r}")
    if "/" in ref:
        config = download(ref, CONFIG, hint=f"; a model of transformers is written hf/{ref}")
        weights = weights_of(ref, WEIGHTS[:1], config.parent.name)
        return _from_folder(config.parent, weights, f"open_clip/{ref}", image_size, ref)
    name, _, tag = ref.partition(":")
    if name not in open_clip.list_models():
        raise PrismaError(f"open_clip has no model {name!r}; the nearest: {nearest(name, open_clip.list_models())}")
    if (
        "hf_model_name" not in open_clip.get_model_config(name)["text_cfg"]
    ):  # else its architecture itself is on the Hub
        _expect_readable(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tags:
        raise PrismaError(
            f"open_clip publishes no weights for {name}; to use weights of your own, load a module that has them"
        )
    tag = tag or tags[0]
    published = open_clip.get_pretrained_cfg(name, tag)
    if not published:
        raise PrismaError(f"open_clip has no weights {tag!r} for {name}; the nearest: {nearest(tag, tags)}")
    weights = _published_weights(published, f"open_clip/{name}:{tag}")
    look = {key: published[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in published}
    model = _created(
        name,
        weights,
        f"open_clip/{name}:{tag}",
        image_size,
        force_quick_gelu=published.get("quick_gelu", False),  # the weights decide this, and the name may not say it
        force_preprocess_cfg=look,
    )
    return _source(model, _tokenizer_of(name))


def load_folder(folder: Path, image_size: ImageSize = None) -> SourceModel:
    """A folder with `open_clip_config.json` and safetensors weights, as open_clip saves a model.

    Raises:
        PrismaError: there is no such configuration, there are no such weights or several, or they do not fit each
            other.
        UnsupportedModelError: the image tower cannot be converted exactly.
    """
    return _from_folder(folder, weights_in(folder, WEIGHTS), str(folder), image_size)


def _from_folder(folder: Path, weights: Weights, what: str, image_size: ImageSize, repo: str = "") -> SourceModel:
    _expect_config(folder / CONFIG)
    name = f"local-dir:{folder}"
    return _source(_created(name, weights, what, image_size), _tokenizer_of(name, repo))


def _created(name: str, weights: Weights, what: str, image_size: ImageSize, **options: Any) -> Any:
    """The pair that open_clip builds, with the weights that Prisma chose: open_clip looks for no file."""
    import open_clip

    with weights.as_file() as file, library_errors(what, hub=True):
        config = open_clip.get_model_config(name)
        is_adapter = "timm_model_name" in config["vision_cfg"]  # which open_clip resizes after loading
        build = partial(
            open_clip.create_model,
            name,
            load_weights=False,
            pretrained_text=False,
            force_image_size=None if is_adapter else image_size,
            **options,
        )
        outline: Any = without_values(partial(build, device="meta"), what)
        expect_image_size(family_of(outline.visual).read(outline.visual).config, image_size)
        model = build()
        open_clip.load_checkpoint(model, str(file), strict=True)
        if is_adapter and image_size is not None:
            model.visual.set_input_size(image_size)
    return model


def _published_weights(published: dict[str, Any], what: str) -> Weights:
    """The safetensors of one of open_clip's tags: a file on this machine, or of the Hub."""
    if "file" in published:
        return Weights((Path(published["file"]),))
    repo, _, name = published.get("hf_hub", "").rpartition("/")
    if not repo:
        raise PrismaError(f"expected safetensors of {what} on the Hub; found {published.get('url')}. {NO_PICKLES}")
    stem = Path(name).stem
    usual = stem in ("", Path(WEIGHTS[0]).stem, "open_clip_pytorch_model")
    return weights_of(repo, WEIGHTS[:1] if usual else (f"{stem}.safetensors",))


def _tokenizer_of(name: str, repo: str = "") -> Callable[[], Any]:
    """The tokenizer of an architecture or folder, whose files are in a repository if one is given.

    Code that comes with the files is not run.
    """
    import open_clip

    def load() -> Any:
        theirs = open_clip.get_model_config(name)["text_cfg"].get("hf_tokenizer_name")
        if not theirs:
            return open_clip.get_tokenizer(name)
        with from_the_hub(repo or ("" if Path(theirs).is_dir() else theirs)):
            return open_clip.get_tokenizer(f"hf-hub:{repo}" if repo else name, trust_remote_code=False)

    return load


def load_module(module: nn.Module, image_size: ImageSize = None) -> SourceModel:
    """A live pair or image tower, of which a twin is read; with `image_size`, open_clip's code resizes the twin.

    A module does not tell which tokenizer it was trained with. If its vocabulary has the size of open_clip's own
    tokenizer, that one is used.
    """
    module = twin(module)
    if image_size is not None:
        visual: Any = getattr(module, "visual", module)
        expect_image_size(family_of(visual).read(visual).config, image_size)
        _resize(getattr(module, "visual", module), image_size)
    return _source(module, None)


def _own_tokenizer() -> Any:
    import open_clip

    return open_clip.SimpleTokenizer()


def _resize(visual: Any, image_size: int | tuple[int, int]) -> None:
    """Resample the positions as open_clip does when it loads weights into a model of another image size."""
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
        raise PrismaError(
            f"open_clip resamples positions of square images only; found a grid of {old[0]} x {old[1]} patches"
        )
    resize_pos_embed(state, SimpleNamespace(visual=visual))
    visual.positional_embedding = nn.Parameter(state["visual.positional_embedding"])


def _expect_config(path: Path) -> None:
    """Raise PrismaError unless this is a configuration of open_clip, with sizes within bounds and no code to run."""
    try:
        model = (values := read_json(path))["model_cfg"]
        known = isinstance(model["vision_cfg"], dict) and isinstance(model["text_cfg"], dict)
    except (PrismaError, KeyError, TypeError):
        known = False
    if not known:
        raise PrismaError(
            f"expected JSON with model_cfg, and vision_cfg and text_cfg in it, in {path}; found no such file or entries"
        )
    expect_sizes(values, path)
    if isinstance(tower := model["text_cfg"].get("hf_model_name"), str):  # transformers builds it from its own file
        own = Path(tower, "config.json")
        if (file := own if own.is_file() else download_if_there(tower, own.name)) is not None:
            expect_sizes(read_json(file), file)
    if (model["text_cfg"].get("tokenizer_kwargs") or {}).get("trust_remote_code"):
        raise PrismaError(f"expected a tokenizer without code of its own in {path}; found trust_remote_code")


def _expect_readable(name: str) -> None:
    """Raise UnsupportedModelError before anything is downloaded, from the architecture without weights."""
    import open_clip

    with torch.device("meta"), quiet():
        visual = open_clip.create_model(name, load_weights=False, device="meta").visual
    family_of(visual).read(visual)


def _source(model: Any, tokenizer: Callable[[], Any] | None) -> SourceModel:
    visual = getattr(model, "visual", model)
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
    return SourceModel(visual.eval(), _transform(visual, size), text=text, pair=pair)


def _no_tokenizer() -> Any:
    raise PrismaError(
        f"expected a vocabulary of {OWN_VOCABULARY} tokens, that of open_clip's own tokenizer, because a live module "
        "does not tell its tokenizer; found another: load the model by its name or from a folder"
    )


def _text(model: Any) -> nn.Module | None:
    """The text tower, or the pair that contains its parts; None with a warning if it cannot be converted exactly."""
    if not hasattr(model, "logit_scale"):
        return None
    text = getattr(model, "text", model)
    try:
        text_family_of(text).read(text)
    except UnsupportedModelError as error:
        warn(f"the image tower is loaded without its text tower: {error}")
        return None
    return text.eval()


def _transform(visual: Any, size: tuple[int, int]) -> Transform | None:
    """open_clip's evaluation transform; None if the module does not specify it, or if it pads."""
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
