"""Loading transformers' models: `hf/ORG/NAME`, a folder written by `save_pretrained`, or a live module."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prisma.config import ViTConfig
from prisma.data.transform import Transform
from prisma.errors import PrismaError, UnsupportedModelError
from prisma.pretrained.families import FAMILIES, family_of, text_family_of
from prisma.pretrained.family import full_name
from prisma.pretrained.library_calls import library_errors, one_line, quiet
from prisma.pretrained.rules import Conversion
from prisma.pretrained.source import ImageSize, SourceModel, expect_safetensors
from prisma.pretrained.transformers.images import takes_any_size
from prisma.pretrained.transformers.tokenizer import PAIRS, text_side
from prisma.pretrained.transformers.transform import transform_of

CONFIG, WEIGHTS, SHARDS = "config.json", "model.safetensors", "model.safetensors.index.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def load_name(name: str, revision: str | None = None, image_size: ImageSize = None) -> SourceModel:
    """`ORG/NAME`: from the Hub, or from the Hub's cache when offline.

    Raises:
        PrismaError: there is no such repository, revision or file, or the repository is gated or private.
        UnsupportedModelError: the model has a class that Prisma does not read; no weights are downloaded then.
    """
    folder = _fetched(name, CONFIG, revision).parent
    commit = folder.name
    kind = _kind(folder)
    for extra in PROCESSORS:
        _fetched_if_there(name, extra, commit)
    if _fetched_if_there(name, WEIGHTS, commit) is None and (index := _fetched_if_there(name, SHARDS, commit)):
        for shard in sorted(set(_json(index)["weight_map"].values())):
            _fetched(name, shard, commit)
    return _source(_loaded(kind, folder, name), folder, image_size, name, revision=revision)


def load_folder(folder: Path, image_size: ImageSize = None) -> SourceModel:
    """A folder that `save_pretrained` wrote.

    Raises:
        PrismaError: there is no config.json, there are no safetensors weights, or the weights do not fit the
            architecture (the message lists all missing, unused and wrongly shaped tensors).
        UnsupportedModelError: the model has a class that Prisma does not read, or cannot be converted exactly.
    """
    return _source(_loaded(_kind(folder), folder, str(folder)), folder, image_size, folder)


def load_module(module: nn.Module, image_size: ImageSize = None) -> SourceModel:
    """A live module. Its `name_or_path` gives transform and tokenizer, if it is a folder or in the Hub's cache."""
    memo: dict[int, Any] = {id(x): x for x in (*module.parameters(), *module.buffers())}
    origin = str(getattr(module, "name_or_path", "") or "")
    copied = copy.deepcopy(module, memo).eval()  # which shares the weights
    return _source(copied, _processor_folder(origin), image_size, origin or None)


def describe(module: Any, folder: Path | None) -> tuple[Transform | None, tuple[str, ...]]:
    """(transform, labels): of the image processor in `folder`, and of the module if it is a classifier."""
    config = _config(module)
    names = getattr(module.config, "id2label", None) or {}
    labels = tuple(str(names[i]) for i in sorted(names)) if len(names) == config.n_classes else ()
    if folder is None or not any((folder / name).is_file() for name in PROCESSORS):
        return None, labels
    from transformers import AutoImageProcessor

    with library_errors(f"the image processor of {folder}"):
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    return transform_of(processor, config.channels), labels


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


def _kind(folder: Path) -> Any:
    """The class of the model in a folder. Raises UnsupportedModelError unless Prisma reads it."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    if not (folder / CONFIG).is_file():
        raise PrismaError(f"expected a folder with {CONFIG}, as transformers saves a model; found none in {folder}")
    values = _json(folder / CONFIG)
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
    if not any(f"{kind.__module__}.{kind.__qualname__}" in family.classes for family in FAMILIES):
        family_of(_empty(kind, folder))  # raises with the reason
    return kind


def _empty(kind: Any, folder: Path) -> nn.Module:
    """The module of a folder, with weights that have shapes and no values."""
    with library_errors(f"the {kind.__name__} of {folder / CONFIG}"):
        config = kind.config_class.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            return kind(config)


def _loaded(kind: Any, folder: Path, name: str) -> nn.Module:
    """The module with the folder's weights, in the precision in which they are saved."""
    expect_safetensors(any((folder / weights).is_file() for weights in (WEIGHTS, SHARDS)), folder, name)
    with library_errors(f"the {kind.__name__} of {name}"), _without_progress_bars():
        module, info = kind.from_pretrained(
            folder,
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # _expect_all lists them
            output_loading_info=True,
        )
    _expect_all(module, info, name)
    return module


def _expect_all(module: nn.Module, info: dict[str, Any], name: str) -> None:
    """Raise PrismaError if tensors that we use are missing, unknown or wrongly shaped; the message lists them all."""
    conversions: list[Conversion] = [family_of(module).read(module)]
    if full_name(module) in PAIRS:
        conversions.append(text_family_of(module).read(module))

    def ignored(tensor: str) -> bool:
        return all(conversion.ignores(tensor) for conversion in conversions)

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


def _fetched_if_there(repo: str, file: str, revision: str) -> Path | None:
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return _download(repo, file, revision)
    except EntryNotFoundError:
        return None


def _fetched(repo: str, file: str, revision: str | None) -> Path:
    """One file of a repository, from the Hub or its cache. Raises PrismaError."""
    from huggingface_hub import errors

    at = f"{repo} at {revision}" if revision else repo
    try:
        return _download(repo, file, revision)
    except errors.GatedRepoError:
        reason = "is gated: accept its terms on its page, then run `hf auth login` or set HF_TOKEN"
    except errors.RepositoryNotFoundError:
        reason = "is not on the Hub; if it is private, run `hf auth login` or set HF_TOKEN"
    except errors.RevisionNotFoundError:
        reason = "is not on the Hub: the repository has no such revision"
    except errors.LocalEntryNotFoundError:
        reason = f"is not in the Hub's cache ({file}), and the Hub cannot be reached"
    except errors.EntryNotFoundError:
        reason = f"has no {file}, which every model of transformers has"
    except (errors.HFValidationError, OSError) as error:
        reason = f"could not be downloaded from the Hub ({type(error).__name__}: {one_line(error)})"
    raise PrismaError(f"{at} {reason}")


def _download(repo: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repo, file, revision=revision))


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PrismaError(f"expected JSON in {path}; found something else ({one_line(error)})") from None
    if not isinstance(values, dict):
        raise PrismaError(f"expected a JSON object in {path}; found {type(values).__name__}")
    return values


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
