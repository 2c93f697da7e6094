"""An edited model as an artefact: the folder that `prisma edit` writes, with a card that says what was edited.

The folder's own card is rendered from the same facts, without the names on the Hub, which only publishing knows.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prisma import __version__
from prisma.checkpoint import CONFIG, WEIGHTS
from prisma.editing.folder import BEFORE, EDIT, MEASURES, Edited, read_edited
from prisma.editing.weight_edit import source_of
from prisma.errors import PrismaError, listed
from prisma.files import write_atomic
from prisma.publish.artefacts.artefact import Artefact
from prisma.publish.artefacts.base_model import BaseModel
from prisma.publish.commits import File
from prisma.publish.facts import Fact
from prisma.publish.markdown import one_line
from prisma.publish.metadata import license_name, to_yaml
from prisma.publish.plan import CARD, expect_no_link
from prisma.publish.prose import BEGIN, END, own_prose, with_prose
from prisma.publish.rendering import rendered
from prisma.repo_names import expect_repo_name
from prisma.repository import ARTEFACT

KIND = "edited-model"
NAMES = (CONFIG, WEIGHTS, EDIT, BEFORE, MEASURES)
FACTS = frozenset(
    ("before", "after", "changes", "edit", "measures", "input", "classes", "base_model", "license", "environment")
)
"""What the manifest of an edited model says about it."""
TAGS = ("vision-transformer", "mechanistic-interpretability", "model-editing", "prisma")
SHOWN = (
    "method",
    "layer",
    "role",
    "images",
    "copies",
    "keys",
    "ridge",
    "old",
    "heads",
    "strength",
    "steps",
    "lr",
    "box",
    "seed",
)
"""Settings of an edit that a card shows, as far as the edit has them."""


def of_edited(folder: Path, repo: str, hub: Path | None, base_model: str | None, license: str | None) -> Artefact:
    """What the folder of an edited model is published as.

    Args:
        hub: a folder hub, in which the base model is looked for first.
        base_model: the model before the edit: OWNER/NAME or OWNER/NAME@REVISION. Its weights are compared.

    Raises:
        PrismaError: a name that the Hub does not allow, no edited model, a link in its folder, no base model, or one
            with other weights.
    """
    expect_repo_name(repo)
    for name in NAMES:
        expect_no_link(folder, name, "edited model")
    edited = read_edited(folder)
    weights = source_of(edited.before.model)
    base = BaseModel.of(base_model, "an edited model", weights, hub, lambda model: None)
    if base.repo == repo:
        raise PrismaError(f"expected another repository than that of the base model; found {repo}")
    about = {**facts_of(edited), "base_model": base.to_dict(), "license": license, "environment": _environment()}
    files = tuple(File.of(name, folder / name) for name in NAMES)
    return Artefact(KIND, about, files, with_prose(render(repo, about), own_prose(folder)))


def write_card(folder: Path) -> None:
    """Write the card of a folder that was just made. What a person wrote into one that is there stays."""
    about = {**facts_of(read_edited(folder)), "environment": _environment()}
    write_atomic(folder / CARD, with_prose(_card(folder.name, about), own_prose(folder)).encode())


def _environment() -> dict[str, str]:
    return {"prisma": __version__}


def facts_of(edited: Edited) -> dict[str, Any]:
    """What the files of an edited model themselves say, as JSON has it."""
    config = edited.after.config
    return {
        "before": source_of(edited.before.model),
        "after": source_of(edited.after.model),
        "changes": [
            {"weight": part.weight, "shape": list(part.shape), "rank": part.u.shape[1]} for part in edited.edit.parts
        ],
        "edit": {name: value for name, value in edited.edit.about.items() if name in ("from", "to", *SHOWN)},
        "measures": dict(edited.measures),
        "input": list(config.input_shape),
        "classes": config.n_classes,
    }


def render(repo: str, about: Mapping[str, Any]) -> str:
    """The card of an edited model, from what its manifest says about it. Raises PrismaError as `dataset.render`."""
    return _card(repo, about)


def _card(name: str, about: Mapping[str, Any]) -> str:
    fact = Fact(about, f"about of {ARTEFACT}")
    base, license = fact.get("base_model"), fact.get("license")
    model = None if base is None else BaseModel.read(base)
    metadata = {
        "license": one_line(license.text()) if license else None,
        "library_name": "prisma",
        "pipeline_tag": "image-classification",
        "tags": list(TAGS),
        **(model.metadata("finetune") if model else {}),
    }
    edit = fact["edit"]
    facts = {
        "metadata": to_yaml({key: value for key, value in metadata.items() if value is not None}),
        "repo": name,
        "published": model is not None,
        "name": name.split("/")[-1],
        "base": model,
        "from": _class(edit["from"]),
        "to": _class(edit["to"]),
        "settings": {key: _setting(edit[key]) for key in SHOWN if edit.get(key) is not None},
        "changes": [
            {
                "weight": row["weight"].text(),
                "shape": " x ".join(str(n.whole(1)) for n in row["shape"].rows(1, 2)),
                "rank": row["rank"].whole(1),
            }
            for row in fact["changes"].rows()
        ],
        "measures": [_measure(key, row) for key, row in fact["measures"].items().items() if key != "near_gap"],
        "before": fact["before"].text(),
        "input": [n.whole(1) for n in fact["input"].rows(3, 4)],
        "files": NAMES,
        "version": fact["environment"]["prisma"].text(),
        "license_name": license_name(license.text()) if license else None,
        "prose": (BEGIN, END),
    }
    return rendered("edited_model.md", facts)


def _class(fact: Fact) -> str:
    name = fact.get("name")
    return f"class {fact['class'].whole()}" if name is None else name.text()


def _setting(fact: Fact) -> str:
    if isinstance(fact.value, list):
        return ", ".join("/".join(str(n.whole()) for n in row.rows(2, 2)) for row in fact.rows())
    return fact.setting()


def _measure(name: str, row: Fact) -> dict[str, Any]:
    low, high = (end.number(0, 1) for end in row["interval"].rows(2, 2))
    value = row.get("value")
    return {
        "name": name.replace("_", " "),
        "value": None if value is None else value.number(0, 1),
        "low": low,
        "high": high,
        "n": row["n"].whole(),
    }


def problems(folder: Path, repo: str, about: Mapping[str, Any], *, deep: bool) -> Iterator[str]:
    """Where the files of an edited model differ from what its manifest says about it.

    Reading them shows that the weights before, with the edit, are bitwise the weights after.
    """
    wanted = facts_of(read_edited(folder))
    if wrong := [key for key in wanted if wanted[key] != about.get(key)]:
        yield f"expected what the files hold in {ARTEFACT}; found others of {listed(wrong)}"
    base = BaseModel.read(Fact(about, f"about of {ARTEFACT}")["base_model"])
    if base.weights != wanted["before"]:
        yield f"expected a base model with the weights {wanted['before']}, which were edited; found others"
