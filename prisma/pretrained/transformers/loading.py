"""Loading transformers' models: `hf/ORG/NAME`, a folder written by `save_pretrained`, or a live module."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prisma.config import ViTConfig
from prisma.data.transform import Transform
from prisma.downloads import download, download_if_there
from prisma.errors import PrismaError, UnsupportedModelError, quoted
from prisma.files import read_json
from prisma.pretrained.families import family_of, text_family_of
from prisma.pretrained.family import full_name
from prisma.pretrained.library_calls import library_errors, one_line, quiet
from prisma.pretrained.rules import Conversion
from prisma.pretrained.sizes import expect_sizes, without_values
from prisma.pretrained.source import ImageSize, SourceModel, class_names
from prisma.pretrained.transformers.images import takes_any_size
from prisma.pretrained.transformers.tokenizer import PAIRS, text_side
from prisma.pretrained.transformers.transform import transform_of
from prisma.pretrained.twin import twin
from prisma.pretrained.weights import Weights, weights_in, weights_of

CONFIG, WEIGHTS = "config.json", ("model.safetensors",)
PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def load_name(name: str, revision: str | None = None, image_size: ImageSize = None) -> SourceModel:
    """`ORG/NAME`: from the Hub, or from the Hub's cache when offline.

    Raises:
        PrismaError: there is no such repository, revision or file, or the repository is gated or private.
        UnsupportedModelError: the model has a class that Prisma does not read; no weights are downloaded then.
    """
    folder = config_folder(name, revision)
    kind = _kind(folder, name)
    fetch_processor(name, folder.name)
    module = _loaded(kind, folder, weights_of(name, WEIGHTS, folder.name), name)
    return _source(module, folder, image_size, name, revision=revision)


def config_folder(name: str, revision: str | None = None) -> Path:
    """The folder of a commit in the Hub's cache, with its config.json. Raises PrismaError as `load_name`."""
    return download(name, CONFIG, revision, hint=f"; a model of open_clip is written open_clip/{name}").parent


def fetch_processor(name: str, commit: str) -> None:
    """Put what describes the image processor into that folder, as far as the repository has it."""
    for extra in PROCESSORS:
        download_if_there(name, extra, commit)


def load_folder(folder: Path, image_size: ImageSize = None) -> SourceModel:
    """A folder that `save_pretrained` wrote.

    Raises:
        PrismaError: there is no config.json, there are no safetensors weights, or the weights do not fit the
            architecture (the message lists all missing, unused and wrongly shaped tensors).
        UnsupportedModelError: the model has a class that Prisma does not read, or cannot be converted exactly.
    """
    kind = _kind(folder, str(folder))
    module = _loaded(kind, folder, weights_in(folder, WEIGHTS), str(folder))
    return _source(module, folder, image_size, folder)


def load_module(module: nn.Module, image_size: ImageSize = None) -> SourceModel:
    """A live module. Its `name_or_path` gives transform and tokenizer, if it is a folder or in the Hub's cache."""
    origin = str(getattr(module, "name_or_path", "") or "")
    return _source(twin(module), _processor_folder(origin), image_size, origin or None)


def describe(module: Any, folder: Path | None) -> tuple[Transform | None, tuple[str, ...]]:
    """(transform, labels): of the image processor in `folder`, and of the module if it is a classifier."""
    config = _config(module)
    labels = labels_of(module, config.n_classes)
    processor = None if folder is None else processor_of(folder)
    return None if processor is None else transform_of(processor, config.channels), labels


def labels_of(module: Any, n_classes: int) -> tuple[str, ...]:
    """The names of a classifier's classes."""
    names = getattr(module.config, "id2label", None) or {}
    return class_names((names[i] for i in sorted(names)), n_classes)


def processor_of(folder: Path) -> Any:
    """The image processor of a folder; None if it has none."""
    if not any((folder / name).is_file() for name in PROCESSORS):
        return None
    from transformers import AutoImageProcessor

    with library_errors(f"the image processor of {folder}"):
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _source(
    module: Any, folder: Path | None, image_size: ImageSize, tokenizer: str | Path | None, **options: Any
) -> SourceModel:
    transform, labels = describe(module, folder)
    sizes = getattr(module.config, "vision_config", module.config)
    if image_size is not None:
        sizes.image_size = image_size
    elif transform is not None and takes_any_size(module):  # then the source gets images of the transform's size
        sizes.image_size = transform.size
    with library_errors(f"{type(module).__name__} at image_size={getattr(sizes, 'image_size', None)}"):
        size = _config(module).image_sides
    text, pair = text_side(module, tokenizer, **options)
    return SourceModel(module.eval(), None if transform is None else transform.resized(size), labels, text, pair)


def _config(module: nn.Module) -> ViTConfig:
    config = family_of(module).read(module).config
    assert isinstance(config, ViTConfig)  # families of text towers are separate
    return config


def _kind(folder: Path, name: str) -> Any:
    """The class of the model in a folder. Raises UnsupportedModelError: Prisma does not read it."""
    kind = class_in(folder, name)
    family_of(outline(kind, folder))  # raises with the reason
    return kind


def class_in(folder: Path, name: str) -> Any:
    """The class that transformers has for a folder, whose configuration states sizes within bounds.

    Raises:
        UnsupportedModelError: transformers has none.
    """
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    if not (folder / CONFIG).is_file():
        raise PrismaError(f"expected a folder with {CONFIG}, as transformers saves a model; found none in {folder}")
    values = _json(folder / CONFIG)
    _expect_precision(values, folder / CONFIG)
    expect_sizes(values, folder / CONFIG)
    listed, model_type = values.get("architectures") or [], values.get("model_type")
    names = [*listed[:1], MODEL_MAPPING_NAMES.get(str(model_type))] if isinstance(listed, list) else []
    kind = next(
        (found for name in names if isinstance(name, str) and (found := getattr(transformers, name, None))), None
    )
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise UnsupportedModelError(
            f"expected a model that transformers has a class for; found architectures={listed} and "
            f"model_type={model_type!r} in {folder / CONFIG}"
        )
    return kind


def _expect_precision(values: dict[str, Any], path: Path) -> None:
    """Raise PrismaError unless a config.json states no precision, one that torch has, or one for each part."""
    for key in ("dtype", "torch_dtype"):
        found = values.get(key)
        precision = getattr(torch, found, None) if isinstance(found, str) else None
        known = isinstance(precision, torch.dtype) and precision.is_floating_point
        if not (known or found is None or isinstance(found, dict)):
            raise PrismaError(f"expected {key} in {path} as a precision, such as 'float32'; found {quoted(found)}")


def outline(kind: Any, folder: Path) -> nn.Module:
    """The module of a folder, with weights that have shapes and no values."""
    what = f"the {kind.__name__} of {folder / CONFIG}"
    with library_errors(what):
        config = kind.config_class.from_pretrained(folder, local_files_only=True)
        whole = config.to_dict()
    expect_sizes(whole, folder / CONFIG)  # what the file does not state has the library's default
    return without_values(lambda: kind(config), what)


def _loaded(kind: Any, folder: Path, weights: Weights, name: str) -> nn.Module:
    """The module with these weights, of which those are ignored that its family does not use."""

    def ignored(module: nn.Module) -> Callable[[str], bool]:
        conversions: list[Conversion] = [family_of(module).read(module)]
        if full_name(module) in PAIRS:
            conversions.append(text_family_of(module).read(module))
        return lambda tensor: all(conversion.ignores(tensor) for conversion in conversions)

    return with_weights(kind, folder, weights, name, ignored)


def with_weights(
    kind: Any, folder: Path, weights: Weights, name: str, ignored: Callable[[nn.Module], Callable[[str], bool]]
) -> nn.Module:
    """The module with these weights, in the precision in which they are saved. transformers looks for no file.

    Args:
        ignored: a module -> whether it does without a tensor, by its name.

    Raises:
        PrismaError: tensors are missing, unknown or wrongly shaped; the message lists them all.
    """
    what, tensors = f"the {kind.__name__} of {name}", weights.tensors()
    with library_errors(what), _without_progress_bars():
        module, info = kind.from_pretrained(
            None,
            config=kind.config_class.from_pretrained(folder, local_files_only=True),
            state_dict=tensors,
            dtype="auto",
            ignore_mismatched_sizes=True,  # _expect_all lists them
            output_loading_info=True,
        )
    _expect_all(info, name, ignored(module))
    return module


def _expect_all(info: dict[str, Any], name: str, ignored: Callable[[str], bool]) -> None:
    """Raise PrismaError if tensors that we use are missing, unknown or wrongly shaped; the message lists them all."""
    missing = sorted(tensor for tensor in info["missing_keys"] if not ignored(tensor))
    extra = sorted(tensor for tensor in info["unexpected_keys"] if not ignored(tensor))
    misshaped = sorted((tensor, list(found), list(wanted)) for tensor, found, wanted in info["mismatched_keys"])
    wrong = [
        *(f"{tensor} is missing" for tensor in missing),
        *(f"{tensor} is not used" for tensor in extra),
        *(f"{tensor} is {found} instead of {wanted}" for tensor, found, wanted in misshaped),
        *(one_line(message) for message in info["error_msgs"]),
    ]
    if wrong:
        raise PrismaError(f"the weights of {name} do not fit its architecture: {'; '.join(wrong)}")


def _processor_folder(name: str) -> Path | None:
    """The folder with the image processor of a `name_or_path`: itself, or in the Hub's cache. Uses no network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if not name or Path(name).is_dir():
        return Path(name) if name else None
    try:
        found = [try_to_load_from_cache(name, file) for file in PROCESSORS]
    except HFValidationError:
        return None
    return next((Path(path).parent for path in found if isinstance(path, str)), None)


def _json(path: Path) -> dict[str, Any]:
    return read_json(path)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Silence transformers and switch off its progress bars and the Hub's; their settings are unchanged afterwards."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    bars, no_hub_bars = logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    with quiet():
        logging.disable_progress_bar()
        try:
            yield
        finally:
            if bars:
                logging.enable_progress_bar()
            if no_hub_bars:
                disable_progress_bars()
