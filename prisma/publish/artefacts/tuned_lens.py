"""A tuned lens as an artefact about its base model: the two files of its folder, and a card."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prisma import __version__
from prisma.analysis.lens.tuned_lens import CONFIG, MODEL, WEIGHTS, TunedLens, expect_fits, read_tuned_lens
from prisma.errors import PrismaError, listed
from prisma.publish.artefacts.artefact import Artefact
from prisma.publish.artefacts.base_model import BaseModel
from prisma.publish.commits import File
from prisma.publish.facts import Fact
from prisma.publish.markdown import one_line
from prisma.publish.metadata import license_name, to_yaml
from prisma.publish.plan import expect_no_link
from prisma.publish.prose import BEGIN, END, own_prose, with_prose
from prisma.publish.rendering import rendered
from prisma.repo_names import expect_repo_name
from prisma.repository import ARTEFACT

KIND = "tuned-lens"
NAMES = (CONFIG, WEIGHTS)
FACTS = frozenset(
    ("weights", "stages", "d_model", "parameters", "settings", "losses", "base_model", "license", "environment")
)
"""What the manifest of a tuned lens says about it."""
TAGS = ("tuned-lens", "vision-transformer", "mechanistic-interpretability", "prisma")
SETTINGS = ("images", "steps", "batch", "lr", "weight_decay", "seed")  # of the training, as the lens states them


def of_lens(folder: Path, repo: str, hub: Path | None, base_model: str | None, license: str | None) -> Artefact:
    """What a folder with a tuned lens is published as.

    Args:
        hub: a folder hub, in which the base model is looked for first.
        base_model: the model that the lens was trained on: OWNER/NAME or OWNER/NAME@REVISION. It is loaded, and its
            weights are compared with those that the lens states.

    Raises:
        PrismaError: a name that the Hub does not allow, no tuned lens, a link in its folder, no base model, or one with
            other weights.
    """
    expect_repo_name(repo)
    for name in NAMES:
        expect_no_link(folder, name, "tuned lens")
    lens = read_tuned_lens(folder)
    weights = lens.metadata.get(MODEL)
    if not isinstance(weights, str):
        raise PrismaError(
            f"expected a tuned lens that states the weights of its model in {folder}; found none, as in those of "
            "version 0.1.0: train it again"
        )
    base = BaseModel.of(base_model, "a tuned lens", weights, hub, lambda model: expect_fits(lens, model))
    if base.repo == repo:
        raise PrismaError(f"expected another repository than that of the base model; found {repo}")
    about = {**facts_of(lens), "base_model": base.to_dict(), "license": license, "environment": {"prisma": __version__}}
    files = tuple(File.of(name, folder / name) for name in NAMES)
    return Artefact(KIND, about, files, with_prose(render(repo, about), own_prose(folder)))


def facts_of(lens: TunedLens) -> dict[str, Any]:
    """What the files of a lens themselves say, as JSON has it."""
    first, last = (lens.losses[i].tolist() for i in (0, -1))
    return {
        "weights": lens.metadata.get(MODEL),
        "stages": len(lens.bias),
        "d_model": lens.bias.shape[1],
        "parameters": lens.weight.numel() + lens.bias.numel(),
        "settings": {name: lens.metadata[name] for name in SETTINGS if name in lens.metadata},
        "losses": [[float(f"{a:.6g}"), float(f"{b:.6g}")] for a, b in zip(first, last, strict=True)],
    }


def render(repo: str, about: Mapping[str, Any]) -> str:
    """The card of a tuned lens, from what its manifest says about it. Raises PrismaError as `dataset.render`."""
    fact = Fact(about, f"about of {ARTEFACT}")
    base, license = BaseModel.read(fact["base_model"]), fact.get("license")
    rows = [row.rows(2, 2) for row in fact["losses"].rows(1, 10_000)]
    metadata = {
        "license": one_line(license.text()) if license else None,
        "library_name": "prisma",
        "tags": list(TAGS),
        **base.metadata("adapter"),
    }
    facts = {
        "metadata": to_yaml({key: value for key, value in metadata.items() if value is not None}),
        "repo": repo,
        "name": repo.split("/")[1],
        "base": base,
        "stages": fact["stages"].whole(1),
        "d_model": fact["d_model"].whole(1),
        "parameters": fact["parameters"].whole(1),
        "losses": [{"before": a.number(), "after": b.number()} for a, b in rows],
        "settings": {key: value.setting() for key, value in fact["settings"].items().items()},
        "files": NAMES,
        "version": fact["environment"]["prisma"].text(),
        "license_name": license_name(license.text()) if license else None,
        "prose": (BEGIN, END),
    }
    return rendered("tuned_lens.md", facts)


def problems(folder: Path, repo: str, about: Mapping[str, Any], *, deep: bool) -> Iterator[str]:
    """Where the files of a lens differ from what its manifest says about it."""
    wanted = facts_of(read_tuned_lens(folder))
    if wrong := [key for key in wanted if wanted[key] != about.get(key)]:
        yield f"expected what {CONFIG} and {WEIGHTS} hold in {ARTEFACT}; found others of {listed(wrong)}"
    base = BaseModel.read(Fact(about, f"about of {ARTEFACT}")["base_model"])
    if base.weights != wanted["weights"]:
        yield f"expected a base model with the weights {wanted['weights']}, on which the lens was trained; found others"
