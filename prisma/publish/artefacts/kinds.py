"""The kinds of artefacts. A new one is a module beside these and an entry here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from prisma.publish.artefacts import coder, dataset, edited_model, language_edit, tuned_lens
from prisma.publish.commits import FileRecord
from prisma.repository import DATASET, MODEL


class Problems(Protocol):
    """Where the files of an artefact differ from what its manifest says about it, as sentences."""

    def __call__(self, folder: Path, repo: str, about: Mapping[str, Any], *, deep: bool) -> Iterator[str]: ...


@dataclass(frozen=True)
class Kind:
    """What an audit must know about a kind of artefact."""

    repository: str  # the kind of its repositories: MODEL or DATASET
    names: tuple[str, ...]  # of its files, beside card and manifest
    facts: frozenset[str]  # what its manifest says about it
    render: Callable[[str, Mapping[str, Any]], str]  # (OWNER/NAME, what the manifest says) -> the card
    problems: Problems
    is_small: bool  # whether its files are read even without `deep`
    checkpoints: Callable[[Mapping[str, Any]], Mapping[str, tuple[FileRecord, ...]]] = lambda about: {}
    """What the manifest says -> the label of each checkpoint, and its files."""


KINDS: Mapping[str, Kind] = {
    DATASET: Kind(DATASET, dataset.NAMES, dataset.FACTS, dataset.render, dataset.problems, False),
    coder.KIND: Kind(MODEL, coder.NAMES, coder.FACTS, coder.render, coder.problems, False, coder.checkpoints),
    tuned_lens.KIND: Kind(MODEL, tuned_lens.NAMES, tuned_lens.FACTS, tuned_lens.render, tuned_lens.problems, True),
    edited_model.KIND: Kind(
        MODEL, edited_model.NAMES, edited_model.FACTS, edited_model.render, edited_model.problems, False
    ),
    language_edit.KIND: Kind(
        MODEL, language_edit.NAMES, language_edit.FACTS, language_edit.render, language_edit.problems, True
    ),
}
"""What the manifest states as `kind` -> the kind."""
