"""A sparse coder as an artefact about its base model: its files, its numbers beside those of baselines, checkpoints.

`main` has the trained coder, its recipe, the numbers of its training, and `evaluation.json`, from which the card is
rendered. Each checkpoint of its training is a revision, `step-000128`, with a coder of its own; the manifest states
the hashes of their files too.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prisma import __version__
from prisma.errors import PrismaError, by_number, listed
from prisma.fields import from_dict
from prisma.publish.artefacts.artefact import Artefact
from prisma.publish.artefacts.base_model import BaseModel
from prisma.publish.commits import Commit, File, FileRecord
from prisma.publish.facts import Fact
from prisma.publish.manifest import Entry
from prisma.publish.markdown import one_line
from prisma.publish.metadata import license_name, to_yaml
from prisma.publish.plan import Step, expect_no_link
from prisma.publish.prose import BEGIN, END, own_prose, with_prose
from prisma.publish.rendering import rendered
from prisma.repo_names import expect_repo_name
from prisma.repository import ARTEFACT
from prisma.run_folder import CHECKPOINTS
from prisma.sparse.activations import bare, roles_of
from prisma.sparse.coders import Coder
from prisma.sparse.evaluated import EVALUATION, read_evaluation
from prisma.sparse.files import CFG, WEIGHTS, read_coder
from prisma.sparse.jobs import METRICS
from prisma.sparse.training import RECIPE
from prisma.vit import ViT

KIND = "sparse-coder"
FOUND_BY = (CFG, WEIGHTS)
"""The files by which a folder is known as a coder's."""
NAMES = (CFG, WEIGHTS, RECIPE, METRICS, EVALUATION)
FACTS = frozenset(
    ("weights", "config", "training", "evaluation", "checkpoints", "base_model", "license", "environment")
)
"""What the manifest of a coder says about it."""
TAGS = ("sparse-autoencoder", "vision-transformer", "mechanistic-interpretability", "prisma")
SETTINGS = ("tokens", "images", "steps", "batch", "lr", "seed", "order_seed", "held_out", "bfloat16")
REACHED = ("fvu", "fvu_held_out", "l0", "l0_held_out", "dead", "dead_after", "gamma")
FIRST = (
    "fvu", "l0", "dead", "agreement", "ce_score", "kl_score", "probe_1", "probe_5", "tpp", "mcc", "uniqueness",
    "decoder_cosine",
)  # fmt: skip
"""The numbers of the table that compares the coder with its baselines; all numbers are in the next one."""


def of_coder(folder: Path, repo: str, hub: Path | None, base_model: str | None, license: str | None) -> Artefact:
    """What a folder with a sparse coder is published as.

    Args:
        folder: as `prisma sparse train --out` writes it, with the numbers of `prisma sparse eval --write`.
        hub: a folder hub, in which the base model is looked for first.
        base_model: the model that it was trained on: OWNER/NAME or OWNER/NAME@REVISION. It is loaded, and its weights
            are compared with those that the coder states.

    Raises:
        PrismaError: a name that the Hub does not allow, no whole coder, no numbers or those of other weights, a
            checkpoint of another coder, a link, no base model, or one with other weights.
    """
    expect_repo_name(repo)
    missing = [name for name in NAMES if not (folder / name).exists() and name != EVALUATION]
    if missing:
        raise PrismaError(
            f"expected a coder that prisma sparse train wrote in {folder}; found none of {listed(missing)}"
        )
    for name in (*NAMES, CHECKPOINTS):
        expect_no_link(folder, name, "sparse coder")
    coder = read_coder(folder)
    facts, steps = facts_of(folder, coder), tuple(_steps(folder, coder))
    base = BaseModel.of(base_model, "a sparse coder", facts["weights"], hub, lambda model: _expect_fits(coder, model))
    if base.repo == repo:
        raise PrismaError(f"expected another repository than that of the base model; found {repo}")
    checkpoints = [{"step": s.entry.step, "files": [asdict(record) for record in s.commit.records]} for s in steps]
    environment = {"prisma": __version__}
    about = {
        **facts, "checkpoints": checkpoints, "base_model": base.to_dict(), "license": license,
        "environment": environment,
    }  # fmt: skip
    files = tuple(File.of(name, folder / name) for name in NAMES)
    return Artefact(KIND, about, files, with_prose(render(repo, about), own_prose(folder)), steps)


def facts_of(folder: Path, coder: Coder) -> dict[str, Any]:
    """What the files of a coder themselves say, as JSON has it.

    Raises:
        PrismaError: the coder does not state one model, or has no numbers of its own and of baselines.
    """
    training = coder.told
    models = training.get("model_sha256", {})
    if not isinstance(models, Mapping) or list(models) != [""]:
        raise PrismaError(
            f"expected a coder that was trained on one model, and states its weights, in {folder}; found "
            f"{len(models) if isinstance(models, Mapping) else 0}"
        )
    found = read_evaluation(folder)
    names = {row.get("coder") for row in found["rows"] if isinstance(row, dict)}
    if "coder" not in names or len(names) < 2:
        raise PrismaError(
            f"expected rows of the coder and of baselines in {EVALUATION} of {folder}; found "
            f"{listed(sorted(map(str, names)))}"
        )
    said = {name: training[name] for name in (*SETTINGS, *REACHED) if training.get(name) is not None}
    evaluation = {name: found[name] for name in ("images", "n", "rows")}
    facts: dict[str, Any] = json.loads(
        json.dumps({"weights": models[""], "config": asdict(coder.config), "training": said, "evaluation": evaluation})
    )
    return facts


def _steps(folder: Path, coder: Coder) -> Iterator[Step]:
    """The checkpoints of the training, each checked."""
    for there in sorted((folder / CHECKPOINTS).glob("step-*"), key=lambda path: by_number(path.name)):
        for name in FOUND_BY:
            expect_no_link(folder, f"{CHECKPOINTS}/{there.name}/{name}", "sparse coder")
        step = expect_checkpoint(there, coder, there.name)
        commit = Commit(tuple(File.of(name, there / name) for name in FOUND_BY))
        weights = commit.file(WEIGHTS)
        entry = Entry(step, there.name, "", weights.sha256, weights.size, (), commit.records)
        yield Step(there.name, f"Step {step} of a sparse coder", commit, entry)


def expect_checkpoint(folder: Path, coder: Coder, label: str) -> int:
    """The step of a checkpoint. Raises PrismaError unless it is one of the same training, at the step of its label."""
    found = read_coder(folder)
    own, whole = found.told, coder.told
    step = own.get("step")
    if type(step) is not int or label_of(step) != label:
        raise PrismaError(f"expected a coder at the step of its label {label} in {folder}; found step {step}")
    other = [name for name in (*SETTINGS, "model_sha256") if own.get(name) != whole.get(name)]
    if found.config != coder.config or other:
        raise PrismaError(
            f"expected a checkpoint of the same training in {folder}; found other {listed(other or ['settings'])}"
        )
    return step


def label_of(step: int) -> str:
    """`step-000128`."""
    return f"step-{step:06d}"


def checkpoints(about: Mapping[str, Any]) -> dict[str, tuple[FileRecord, ...]]:
    """The label of each checkpoint, and its files, as the manifest states them. Raises PrismaError as `Fact`."""
    fact = Fact(about, f"about of {ARTEFACT}")
    stated = fact.get("checkpoints")
    return {
        label_of(row["step"].whole()): tuple(
            from_dict(FileRecord, one.value, f"about of {ARTEFACT}") for one in row["files"].rows()
        )
        for row in (stated.rows(0, 10_000) if stated else [])
    }


def _expect_fits(coder: Coder, model: ViT) -> None:
    """Raise PrismaError unless the model has the coder's site."""
    for site in (*coder.config.sites, *([coder.config.target] if coder.config.target else [])):
        roles_of(model, bare(site))


def render(repo: str, about: Mapping[str, Any]) -> str:
    """The card of a coder, from what its manifest says about it. Raises PrismaError as `dataset.render`."""
    fact = Fact(about, f"about of {ARTEFACT}")
    base, license, config = BaseModel.read(fact["base_model"]), fact.get("license"), fact["config"]
    evaluation, target, k = fact["evaluation"], config.get("target"), config.get("k")
    rows = [row.items() for row in evaluation["rows"].rows(2)]
    training = fact["training"].items()
    metadata = {
        "license": one_line(license.text()) if license else None,
        "library_name": "prisma",
        "tags": list(TAGS),
        **base.metadata("adapter"),
    }
    whole = [row for row in rows if row["tokens"].text() == "all"]
    facts = {
        "metadata": to_yaml({key: value for key, value in metadata.items() if value is not None}),
        "repo": repo,
        "name": repo.split("/")[1],
        "base": base,
        "kind": config["kind"].text(),
        "d": config["d"].whole(1),
        "width": config["width"].whole(1),
        "k": k.whole(1) if k else None,
        "site": " + ".join(site.text() for site in config["sites"].rows()),
        "target": target.text() if target else None,
        "compared": table_of(whole, [name for name in FIRST if any(name in row for row in whole)]),
        "everything": transposed(rows),
        "images": evaluation["images"].text(),
        "n": evaluation["n"].whole(1),
        "settings": {key: training[key].setting() for key in SETTINGS if key in training},
        "reached": {key: training[key].number() for key in REACHED if key in training},
        "steps": [row["step"].whole() for row in fact["checkpoints"].rows(0, 10_000)],
        "files": NAMES,
        "version": fact["environment"]["prisma"].text(),
        "license_name": license_name(license.text()) if license else None,
        "prose": (BEGIN, END),
    }
    return rendered("coder.md", facts)


def table_of(rows: list[dict[str, Fact]], names: list[str]) -> list[list[str]]:
    """A heading and a line for each coder: its name, and its numbers."""
    lines = [[row["coder"].text(), *(number_of(row.get(name)) for name in names)] for row in rows]
    return [["", *names], *lines]


def transposed(rows: list[dict[str, Fact]]) -> list[list[str]]:
    """A line for each number, with a column for each coder and kind of token."""
    heads = [f"{row['coder'].text()}, {row['tokens'].text()}" for row in rows]
    names = list(dict.fromkeys(name for row in rows for name in row if name not in ("coder", "tokens")))
    return [["", *heads], *([name, *(number_of(row.get(name)) for row in rows)] for name in names)]


def number_of(fact: Fact | None) -> str:
    return "" if fact is None else f"{fact.number():,.4g}"


def problems(folder: Path, repo: str, about: Mapping[str, Any], *, deep: bool) -> Iterator[str]:
    """Where the files of a coder differ from what its manifest says about it."""
    if folder == Path():  # on the Hub without `deep`, nothing was downloaded
        return
    wanted = facts_of(folder, read_coder(folder))
    if wrong := [key for key in wanted if wanted[key] != about.get(key)]:
        yield f"expected what {CFG} and {EVALUATION} hold in {ARTEFACT}; found others of {listed(wrong)}"
    base = BaseModel.read(Fact(about, f"about of {ARTEFACT}")["base_model"])
    if base.weights != wanted["weights"]:
        yield (
            f"expected a base model with the weights {wanted['weights']}, on which the coder was trained; found others"
        )
