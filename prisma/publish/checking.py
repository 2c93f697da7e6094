"""Is a card what its data renders to? For a card in a repository of code, beside a run, or anywhere."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from prisma.errors import PrismaError, shown
from prisma.files import read_json
from prisma.filesystem import given
from prisma.publish.metadata import warnings
from prisma.publish.prose import CARD, prose_of, with_prose
from prisma.publish.publishing import preview
from prisma.reading import read_text
from prisma.repo_names import is_repo_name
from prisma.run_folder import RECIPE, expect_finished

CARDS = Path("hub_cards")
"""A folder of cards, one for each mouse, as in Prisma's own repository."""
_LOADED = re.compile(r'prisma\.load\("([^"/]+/[^"/]+)"')


@dataclass(frozen=True)
class CheckedCard:
    """The card of a run, and the card that was found."""

    repo: str
    text: str  # what the data renders to, with the prose of the card that was found
    path: Path | None  # of the card that was found, if any
    found: str  # its text

    @property
    def difference(self) -> str:
        """A unified diff from the card that was found to what the data renders to; empty if they are equal."""
        names = (str(self.path), f"{self.repo} as its data renders")
        lines = difflib.unified_diff(self.found.splitlines(), self.text.splitlines(), *names, lineterm="")
        difference = "\n".join(lines)
        return difference if difference or self.found == self.text else "the two differ in how their lines end"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What in the card's metadata the Hub may not know."""
        return warnings(self.text)


def check_card(run: Path, repo: str | None = None, card: Path | None = None) -> CheckedCard:
    """The card of a finished run, as `publish` would write it, beside the one that is there.

    What a person wrote between the marks `<!-- prose -->` and `<!-- /prose -->` of that one is taken over.

    Args:
        repo: OWNER/NAME; by default the one that the card that is there loads, else OWNER/RECIPE.
        card: the card to compare with; by default README.md in the run, else in `hub_cards/NAME`.

    Raises:
        PrismaError: the run cannot be published, for the reason that `publish` gives; or `card` is not there.
    """
    run, card = given(run), card if card is None else given(card)
    expect_finished(run)
    recipe = read_json(run / RECIPE).get("recipe")
    path = card or _existing(run, repo, recipe)
    found = read_text(path) if path else ""
    repo = repo or _repo_in(found) or f"OWNER/{recipe}"
    if not is_repo_name(repo):
        raise PrismaError(f"expected a recipe whose name a repository can have; found {shown(recipe)}: give --repo")
    text = preview(run, repo)
    return CheckedCard(repo, with_prose(text, prose_of(found)) if path else text, path, found)


def _existing(run: Path, repo: str | None, recipe: object) -> Path | None:
    """The card of a run, where one is usual."""
    names = [repo.rpartition("/")[2]] if repo else [recipe] if isinstance(recipe, str) else []
    places = [run / CARD, *(CARDS / name / CARD for name in names if is_repo_name(f"o/{name}"))]
    return next((path for path in places if path.is_file()), None)


def _repo_in(card: str) -> str | None:
    """The repository that a card loads."""
    found = _LOADED.search(card)
    return found[1] if found and is_repo_name(found[1]) else None
