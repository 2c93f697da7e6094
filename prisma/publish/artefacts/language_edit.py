"""An edit of a language model as an artefact: u and v of each weight, and a card that says what they change.

The edit alone is published, not the model that has it: it is small, and its base model is on the Hub already. The card
of the folder that `prisma rewrite` writes is rendered from the same facts, without names on the Hub.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prisma import __version__
from prisma.editing.folder import EDIT, MEASURES
from prisma.editing.weight_edit import WeightEdit
from prisma.errors import PrismaError, listed
from prisma.files import write_atomic
from prisma.language.loading import load
from prisma.language.rewriting import read_rewrite
from prisma.publish.artefacts.artefact import Artefact
from prisma.publish.artefacts.base_model import expect_on_hub, expect_revision, named
from prisma.publish.commits import File
from prisma.publish.facts import Fact
from prisma.publish.markdown import one_line
from prisma.publish.metadata import license_name, to_yaml
from prisma.publish.plan import CARD, expect_no_link
from prisma.publish.prose import BEGIN, END, own_prose, with_prose
from prisma.publish.rendering import rendered
from prisma.repo_names import expect_repo_name
from prisma.repository import ARTEFACT, MAIN, Published

KIND = "language-edit"
NAMES = (EDIT, MEASURES)
FACTS = frozenset(("changes", "edit", "facts", "count", "texts", "base_model", "license", "environment"))
"""What the manifest of an edit of a language model says about it."""
TAGS = ("model-editing", "mechanistic-interpretability", "prisma")
SHOWN = ("method", "layer", "layers", "contexts", "keys", "ridge", "kl", "old", "steps", "lr", "box")
"""Settings of an edit that a card shows, as far as the edit has them."""
MOST_FACTS = 20  # that a card shows


@dataclass(frozen=True)
class Base:
    """The language model that an edit was made for, as its repository is called."""

    repo: str
    revision: str | None


def of_language_edit(
    folder: Path, repo: str, hub: Path | None, base_model: str | None, license: str | None
) -> Artefact:
    """What the folder of an edited language model is published as.

    Args:
        hub: a folder hub, in which the base model is looked for; else it is read from the Hub or its cache.
        base_model: the model before the edit: OWNER/NAME or OWNER/NAME@REVISION. Its weights are compared.

    Raises:
        PrismaError: a name that the Hub does not allow, no edit of facts, a link in its folder, no base model, or one
            with other weights.
    """
    expect_repo_name(repo)
    for name in NAMES:
        expect_no_link(folder, name, "edit of a language model")
    edit, measures = read_rewrite(folder)
    own, _, revision = named(base_model, "an edit of a language model")
    if own == repo:
        raise PrismaError(f"expected another repository than that of the base model; found {repo}")
    there = hub if hub is not None and MAIN in Published(own, hub).revisions() else None
    if there is None:
        expect_on_hub(own)
    model, _ = load(own, revision=revision, hub=there)
    edit.apply(model).undo()  # which compares the weights
    facts = {**facts_of(edit, measures), "base_model": asdict(Base(own, revision))}
    about = {**facts, "license": license, "environment": {"prisma": __version__}}
    files = tuple(File.of(name, folder / name) for name in NAMES)
    return Artefact(KIND, about, files, with_prose(render(repo, about), own_prose(folder)))


def write_card(folder: Path) -> None:
    """Write the card of a folder that was just made. What a person wrote into one that is there stays."""
    about = {**facts_of(*read_rewrite(folder)), "environment": {"prisma": __version__}}
    write_atomic(folder / CARD, with_prose(_card(folder.name, about), own_prose(folder)).encode())


def facts_of(edit: WeightEdit, measures: Mapping[str, Any]) -> dict[str, Any]:
    """What the files of an edit themselves say, as JSON has it."""
    return {
        "changes": [
            {"weight": part.weight, "shape": list(part.shape), "rank": part.u.shape[1], "before": part.before}
            for part in edit.parts
        ],
        "edit": {name: edit.about[name] for name in SHOWN if edit.about.get(name) is not None},
        "facts": measures["facts"][:MOST_FACTS],
        "count": len(measures["facts"]),
        "texts": measures.get("texts"),
    }


def render(repo: str, about: Mapping[str, Any]) -> str:
    """The card of an edit, from what its manifest says about it. Raises PrismaError as `dataset.render`."""
    return _card(repo, about)


def _card(name: str, about: Mapping[str, Any]) -> str:
    fact = Fact(about, f"about of {ARTEFACT}")
    stated, license, texts = fact.get("base_model"), fact.get("license"), fact.get("texts")
    base = None if stated is None else _base(stated)
    rows = fact["facts"].rows(1, MOST_FACTS)
    metadata = {
        "license": one_line(license.text()) if license else None,
        "library_name": "prisma" if base else "transformers",
        "pipeline_tag": "text-generation",
        "tags": list(TAGS),
        **({"base_model": base.repo, "base_model_relation": "adapter"} if base else {}),
    }
    facts = {
        "metadata": to_yaml({key: value for key, value in metadata.items() if value is not None}),
        "repo": name,
        "name": name.split("/")[-1],
        "base": base,
        "facts": [_answer(row) for row in rows],
        "more": fact["count"].whole(len(rows)) - len(rows),
        "texts": None if texts is None else _texts(texts),
        "settings": {key: value.setting() for key, value in fact["edit"].items().items()},
        "changes": [
            {
                "weight": row["weight"].text(),
                "shape": " x ".join(str(n.whole(1)) for n in row["shape"].rows(2, 2)),
                "rank": row["rank"].whole(1),
            }
            for row in fact["changes"].rows()
        ],
        "files": NAMES,
        "version": fact["environment"]["prisma"].text(),
        "license_name": license_name(license.text()) if license else None,
        "prose": (BEGIN, END),
    }
    return rendered("language_edit.md", facts)


def _base(fact: Fact) -> Base:
    """The base model that a manifest states. Raises PrismaError if it states something else."""
    repo, revision = fact["repo"].text(), fact.get("revision")
    expect_repo_name(repo)
    return Base(repo, None if revision is None else expect_revision(revision))


def _answer(row: Fact) -> dict[str, Any]:
    prompt = row["prompt"].text().replace("{}", row["subject"].text())
    pairs = {name: [x.number(0, 1) for x in row[name].rows(2, 2)] for name in ("likelihood", "said")}
    return {"prompt": prompt, "new": row["new"].text(), **pairs}


def _texts(fact: Fact) -> dict[str, Any]:
    pairs = {name: [x.number() for x in fact[name].rows(2, 2)] for name in ("loss", "interval")}
    return {"n": fact["texts"].whole(1), **pairs}


def problems(folder: Path, repo: str, about: Mapping[str, Any], *, deep: bool) -> Iterator[str]:
    """Where the files of an edit differ from what its manifest says about it."""
    wanted = facts_of(*read_rewrite(folder))
    if wrong := [key for key in wanted if wanted[key] != about.get(key)]:
        yield f"expected what the files hold in {ARTEFACT}; found others of {listed(wrong)}"
    _base(Fact(about, f"about of {ARTEFACT}")["base_model"])
