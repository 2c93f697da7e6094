"""The metadata of a card, the YAML at its top: checked against the fields that the Hub documents, without a network.

`hub_fields.json` holds those fields, with the date at which they were read. Such lists grow, and the Hub has the last
word: an unknown name is a warning, a wrong type or shape an error.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from prisma.errors import PrismaError, quoted, shown
from prisma.reading import parse_json
from prisma.repo_names import expect_repo_name
from prisma.repository import MODEL

LICENSE = "license"
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the metadata of a card."""

    words: str  # what was expected and what was found
    is_error: bool  # else it is a name that the Hub may know by now


@cache
def hub_fields() -> Mapping[str, Any]:
    """The fields that the Hub documents: the content of `hub_fields.json`."""
    found: Mapping[str, Any] = parse_json(
        (files("prisma.publish") / "hub_fields.json").read_text("utf-8"), "hub_fields"
    )
    return found


def license_name(license: str) -> str:
    """A licence by its id on the Hub: its full name, or the id if the Hub does not list it."""
    return str(hub_fields()["licenses"].get(license, license))


def to_yaml(metadata: Mapping[str, Any], kind: str = MODEL) -> str:
    """The metadata of a repository's card as YAML, written by the Hub's own client, without the lines around it.

    Raises:
        PrismaError: the Hub would refuse it; the first error is named.
    """
    from huggingface_hub import CardData, ModelCardData

    for problem in problems(metadata, kind):
        if problem.is_error:
            raise PrismaError(f"expected metadata that the Hub takes; {problem.words}")
    return str((ModelCardData if kind == MODEL else CardData)(**metadata).to_yaml())


def warnings(card: str, kind: str = MODEL) -> tuple[str, ...]:
    """What in the metadata at the top of a card the Hub may not take as it is meant."""
    from huggingface_hub import RepoCard

    return tuple(problem.words for problem in problems(RepoCard(card).data.to_dict(), kind))


def problems(metadata: Any, kind: str = MODEL) -> list[Problem]:
    """What is wrong with the metadata of a model's or data set's card, as YAML has it; none if the Hub takes it."""
    if not isinstance(metadata, Mapping):
        return [Problem(f"expected named fields; found {quoted(metadata)}", True)]
    return list(_problems(metadata, kind))


def _problems(metadata: Mapping[str, Any], kind: str) -> Iterator[Problem]:
    hub = hub_fields()
    keys = hub["keys"] if kind == MODEL else hub["dataset_keys"]
    for key, value in metadata.items():
        if key not in keys:
            yield Problem(f"expected a field that the Hub documents; found {quoted(key)}", False)
        else:
            yield from _KINDS[keys[key]](str(key), value)
    license = metadata.get(LICENSE)
    if license is None:
        yield Problem("expected a license; found none", False)
    elif license == "other":
        for key in ("license_name", "license_link"):
            if key not in metadata:
                yield Problem(f"expected {key} beside license: other; found none", True)
    if "base_model_relation" in metadata and "base_model" not in metadata:
        yield Problem("expected base_model beside base_model_relation; found none", True)
    known = {
        LICENSE: hub["licenses"],
        "pipeline_tag": hub["pipeline_tags"],
        "base_model_relation": hub["base_model_relations"],
        "task_categories": hub["pipeline_tags"],
        "size_categories": hub["size_categories"],
    }
    for key, names in known.items():
        for value in _listed(metadata.get(key)):
            if isinstance(value, str) and value not in names:
                yield Problem(f"expected a {key} that the Hub lists ({hub['date']}); found {quoted(value)}", False)
    for value in _listed(metadata.get("language")):
        if isinstance(value, str) and not _LANGUAGE.fullmatch(value):
            yield Problem(f"expected a code of ISO 639 as language; found {quoted(value)}", False)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(key: str, value: Any) -> Iterator[Problem]:
    if not isinstance(value, str) or not value.strip():
        yield Problem(f"expected {key} to be text; found {quoted(value)}", True)


def _texts(key: str, value: Any) -> Iterator[Problem]:
    """A list of texts; one alone may stand without a list where the Hub takes that."""
    if not isinstance(value, list) and not (isinstance(value, str) and key == "language"):
        yield Problem(f"expected {key} to be a list; found {quoted(value)}", True)
        return
    for part in _listed(value):
        yield from _text(f"each of {key}", part)


def _ids(key: str, value: Any) -> Iterator[Problem]:
    """The id of a repository of the Hub, or a list of them."""
    if key == "datasets" and not isinstance(value, list):
        yield Problem(f"expected {key} to be a list; found {quoted(value)}", True)
        return
    for part in _listed(value):
        try:
            expect_repo_name(part, owner=False)
        except PrismaError as error:
            yield Problem(f"expected {key} to name repositories of the Hub: {error}", True)


def _address(key: str, value: Any) -> Iterator[Problem]:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^\s<>\"]+", value):
        yield Problem(f"expected {key} to be an address (https://...); found {quoted(value)}", True)


def _emissions(key: str, value: Any) -> Iterator[Problem]:
    """Grams of CO2: a number, or an object with it and where it comes from."""
    parts = value if isinstance(value, Mapping) else {"emissions": value}
    grams: Any = parts.get("emissions")
    if not _is_number(grams) or grams < 0:
        yield Problem(f"expected emissions of {key} to be grams, a number of at least 0; found {quoted(grams)}", True)
    for name, part in parts.items():
        if name not in hub_fields()["emissions"]:
            yield Problem(f"expected a field of {key} that the Hub documents; found {quoted(name)}", False)
        elif name != "emissions":
            yield from _text(f"{name} of {key}", part)


def _configs(key: str, value: Any) -> Iterator[Problem]:
    """Parts of a data set, each with a name, and its splits with their files."""
    if not isinstance(value, list) or not all(isinstance(config, Mapping) for config in value):
        yield Problem(f"expected {key} to be a list of configurations; found {quoted(value)}", True)
        return
    for config in value:
        yield from _text(f"config_name of {key}", config.get("config_name"))
        files = config.get("data_files")
        if not isinstance(files, list) or not all(isinstance(split, Mapping) for split in files):
            yield Problem(f"expected data_files of {key} to be a list of splits; found {quoted(files)}", True)
            continue
        for split in files:
            yield from _text(f"split of {key}", split.get("split"))
            yield from _text(f"path of {key}", split.get("path"))


def _model_index(key: str, value: Any) -> Iterator[Problem]:
    """Models, each with results: a task, a data set, and metrics with a type and a value."""
    if not isinstance(value, list) or not all(isinstance(model, Mapping) for model in value):
        yield Problem(f"expected {key} to be a list of models; found {quoted(value)}", True)
        return
    for model in value:
        yield from _text(f"name of {key}", model.get("name"))
        results = model.get("results")
        if not isinstance(results, list) or not results or not all(isinstance(result, Mapping) for result in results):
            yield Problem(f"expected results of {key} to be a list with an entry; found {quoted(results)}", True)
            continue
        for i, result in enumerate(results):
            yield from _result(f"{key}.results[{i}]", result)


def _result(place: str, result: Mapping[str, Any]) -> Iterator[Problem]:
    for part, names in (("task", ("type",)), ("dataset", ("type", "name"))):
        found = result.get(part)
        if not isinstance(found, Mapping):
            yield Problem(f"expected {part} of {place} to have named fields; found {quoted(found)}", True)
            continue
        for name in names:
            yield from _text(f"{part}.{name} of {place}", found.get(name))
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics or not all(isinstance(metric, Mapping) for metric in metrics):
        yield Problem(f"expected metrics of {place} to be a list with an entry; found {quoted(metrics)}", True)
        return
    for metric in metrics:
        yield from _text(f"metrics.type of {place}", metric.get("type"))
        value = metric.get("value")
        if not _is_number(value) and not isinstance(value, str | list | Mapping):
            yield Problem(f"expected metrics.value of {place} to be a finite number; found {shown(value)}", True)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_KINDS: Mapping[str, Callable[[str, Any], Iterator[Problem]]] = {
    "text": _text,
    "texts": _texts,
    "ids": _ids,
    "address": _address,
    "emissions": _emissions,
    "model-index": _model_index,
    "configs": _configs,
}
