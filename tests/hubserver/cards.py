"""What the Hub checks about a card: the block of YAML at the top of README.md."""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.hubserver.store import NAME

LICENSES = frozenset(Path(__file__).with_name("licenses.txt").read_text().split())
COLORS = frozenset({"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"})
SDKS = frozenset({"gradio", "streamlit", "docker", "static"})
RELATIONS = frozenset({"adapter", "finetune", "merge", "quantized"})
STRINGS = (
    "library_name",
    "pipeline_tag",
    "license_name",
    "license_link",
    "thumbnail",
    "new_version",
    "title",
    "app_file",
)
LISTS = ("tags", "datasets", "metrics", "models")
BLOCK = re.compile(r"\A---[ \t]*\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
LANGUAGE = re.compile(r"[a-z]{2,3}|multilingual|code")
TITLE_LIMIT = 60


def metadata(text: bytes) -> dict[str, Any]:
    """The block's fields; none if it cannot be read."""
    found = BLOCK.match(text.decode("utf-8", "replace"))
    try:
        data = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def problems(text: str, kind: str) -> tuple[list[str], list[str]]:
    """(errors, warnings) about a card of a model, dataset or space."""
    found = BLOCK.match(text)
    if not found or not found[1].strip():
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        return [f"Invalid yaml: {' '.join(str(error).split())}"], []
    if not isinstance(data, dict):
        return ["expected a mapping in the YAML block"], []
    errors = _types(data) + _choices(data) + _ids(data) + _results(data.get("model-index"))
    if kind == "space" and data.get("sdk") not in SDKS:
        errors.append(f'"sdk" must be one of {_listed(SDKS)}')
    return errors, []


def _listed(values: frozenset[str]) -> str:
    return f"[{', '.join(sorted(values))}]"


def _several(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _types(data: dict[str, Any]) -> list[str]:
    wrong = [f'"{name}" must be a string' for name in STRINGS if name in data and not isinstance(data[name], str)]
    for name in LISTS:
        if name in data and not isinstance(data[name], list):
            wrong.append(f'"{name}" must be an array')
        values = enumerate(_several(data.get(name)))
        wrong += [f'"{name}[{index}]" must be a string' for index, value in values if not isinstance(value, str)]
    emissions = data.get("co2_eq_emissions")
    grams = emissions.get("emissions") if isinstance(emissions, dict) else emissions
    if emissions is not None and (isinstance(grams, bool) or not isinstance(grams, int | float)):
        wrong.append('"co2_eq_emissions.emissions" must be a number')
    if len(str(data.get("short_description") or "")) > TITLE_LIMIT:
        wrong.append(f'"short_description" length must be less than or equal to {TITLE_LIMIT} characters long')
    return wrong


def _choices(data: dict[str, Any]) -> list[str]:
    choices = {"license": LICENSES, "base_model_relation": RELATIONS, "colorFrom": COLORS, "colorTo": COLORS}
    wrong = []
    for name, allowed in choices.items():
        if any(not isinstance(value, str) or value not in allowed for value in _several(data.get(name))):
            wrong.append(f'"{name}" must be one of {_listed(allowed)}')
    if data.get("license") == "other" and "license_name" not in data:
        wrong.append('"license_name" is required when "license" is "other"')
    if any(not LANGUAGE.fullmatch(str(value)) for value in _several(data.get("language"))):
        wrong.append('"language" must be an ISO 639-1, 639-2 or 639-3 code')
    return wrong


def _ids(data: dict[str, Any]) -> list[str]:
    """Names of repositories on the Hub."""
    wrong = []
    for name in ("base_model", "datasets", "models"):
        for value in _several(data.get(name)):
            parts = str(value).split("/")
            if len(parts) > 2 or not all(NAME.fullmatch(part) for part in parts):
                wrong.append(f'"{name}" with value "{value}" is not valid: it must be an id of the Hub')
    return wrong


def _results(index: object) -> list[str]:
    """What `model-index` must have."""
    if index is None:
        return []
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    wrong = []
    needed = (("task", ("type",)), ("dataset", ("type", "name")))
    for number, model in enumerate(index):
        here = f"model-index[{number}]"
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            wrong.append(f'"{here}.name" is required')
        for row, result in enumerate(_several(model.get("results") if isinstance(model, dict) else None)):
            there, known = f"{here}.results[{row}]", result if isinstance(result, dict) else {}
            for group, names in needed:
                given = known.get(group)
                fields = given if isinstance(given, dict) else {}
                wrong += [f'"{there}.{group}.{name}" is required' for name in names if not fields.get(name)]
            metrics = _several(known.get("metrics"))
            if not metrics:
                wrong.append(f'"{there}.metrics" is required')
            for column, metric in enumerate(metrics):
                fields = metric if isinstance(metric, dict) else {}
                missing = [name for name in ("type", "value") if fields.get(name) is None]
                wrong += [f'"{there}.metrics[{column}].{name}" is required' for name in missing]
    return wrong
