"""The model that an artefact is about: its name on the Hub, and the weights that it must have."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prisma.checkpoint import weights_hash
from prisma.errors import PrismaError, quoted
from prisma.loaded import load
from prisma.pretrained.loading import is_folder
from prisma.publish.facts import Fact
from prisma.repo_names import expect_repo_name
from prisma.repository import MAIN, Published
from prisma.vit import ViT

LIBRARIES = ("hf/", "open_clip/")
"""What `prisma.load` wants before the name of a repository of another library; that of timm is the owner itself."""
_REVISION = re.compile(r"[\w./-]+", re.ASCII)  # it stands in the code of the card


@dataclass(frozen=True)
class BaseModel:
    """A model, as its repository on the Hub is called, and as `prisma.load` calls it."""

    repo: str  # OWNER/NAME
    ref: str  # what `prisma.load` takes
    revision: str | None  # a label or a commit; None is what the repository serves as its model
    weights: str  # a hash of the weights: `prisma.checkpoint.weights_hash`
    input: tuple[int, ...]  # the shape of one input: (channel, (frame,) height, width)

    @classmethod
    def of(
        cls, name: str | None, what: str, weights: str, hub: Path | None, expect: Callable[[ViT], None]
    ) -> "BaseModel":
        """The base model that a person names: loaded, and compared with the weights that the artefact states.

        Args:
            name: OWNER/NAME or OWNER/NAME@REVISION, or the same with the library before it, as `prisma.load` has it.
            what: what is about the model, for messages.
            hub: a folder hub. If it has the model, it is read there; else on the Hugging Face Hub.
            expect: raises PrismaError unless the artefact fits the model.

        Raises:
            PrismaError: no name, no such model, or one with other weights.
        """
        repo, ref, revision = named(name, what)
        there = hub if hub is not None and MAIN in Published(repo, hub).revisions() else None
        if there is None:
            expect_on_hub(ref)
        model = load(ref, revision, there).model
        if (found := weights_hash(model.state_dict())) != weights:
            raise PrismaError(
                f"expected a base model with the weights {weights[:12]}, to which {what} belongs; found "
                f"{found[:12]} in {quoted(name)}: name the right repository, or its revision as OWNER/NAME@step-000128"
            )
        expect(model)
        c = model.config
        shape = (c.channels, *((c.frames,) if c.frames > 1 else ()), *c.image_sides)
        return cls(repo, ref, revision, weights, shape)

    @classmethod
    def read(cls, fact: Fact) -> "BaseModel":
        """The base model that a manifest states. Raises PrismaError if it states none, or something else."""
        revision, repo = fact.get("revision"), fact["repo"].text()
        expect_repo_name(repo)
        shape = tuple(n.whole(1) for n in fact["input"].rows(3, 4))
        ref = fact["ref"].text()
        if ref not in (repo, *(f"{start}{repo}" for start in LIBRARIES)):
            fact["ref"].refuse(f"to be {repo}, as prisma.load has it")
        return cls(repo, ref, expect_revision(revision) if revision else None, fact["weights"].text(), shape)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "input": list(self.input)}

    def metadata(self, relation: str) -> Mapping[str, str]:
        """The fields of a card that name it. `relation`: one that the Hub lists, such as "adapter"."""
        return {"base_model": self.repo, "base_model_relation": relation}


def named(name: str | None, what: str) -> tuple[str, str, str | None]:
    """(OWNER/NAME, what loads it, revision) of a base model that a person names.

    Raises:
        PrismaError: no name, one that the Hub does not allow, or one of this package.
    """
    if name is None:
        raise PrismaError(f"expected the model that {what} belongs to; found none: say --base-model OWNER/NAME")
    ref, has_revision, revision = name.partition("@")
    repo = next((ref.removeprefix(start) for start in LIBRARIES if ref.startswith(start)), ref)
    expect_repo_name(repo)
    if ref.startswith("mice/"):
        raise PrismaError(
            f"expected a base model on the Hub; found {quoted(ref)}, which is in this package alone: publish it too"
        )
    return repo, ref, revision if has_revision else None


def expect_on_hub(ref: str) -> None:
    """Raise PrismaError if the name of a base model is that of a folder here."""
    if is_folder(ref):
        raise PrismaError(
            f"expected a base model on the Hub; found {quoted(ref)}, a folder on this machine: publish it and name "
            "its repository, or go to where there is no such folder"
        )


def expect_revision(fact: Fact) -> str:
    """The revision that a manifest states. Raises PrismaError: it is none that may stand in code."""
    if not _REVISION.fullmatch(fact.text()):
        fact.refuse("to be a branch, a tag or a commit")
    return fact.text()
