"""What one visitor looks at: a model, a checkpoint, an image, a question. The page is a function of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.question import Question, default_question
from app.subject import Picture, Subject, pixels, prefix_names
from prisma.loaded import Loaded
from prisma.view.browser import Packed


@dataclass(frozen=True)
class Session:
    """Everything that the page shows depends on this alone."""

    subject: Subject
    index: int  # of the checkpoint
    picture: Picture
    corrupt: Picture
    question: Question
    tab: str

    @property
    def loaded(self) -> Loaded:
        return self.subject.at(self.index)

    @property
    def labels(self) -> list[str]:
        return self.subject.labels

    def with_images(self, picture: Picture, corrupt: Picture) -> "Session":
        """The same for another pair of images, asked about the classes of that pair. The two differ."""
        if picture.example == corrupt.example:
            corrupt = self.subject.other_example(picture)
        question = default_question(self.subject, picture, corrupt, self.question)
        return replace(self, picture=picture, corrupt=corrupt, question=question)

    def image(self, picture: Picture) -> Packed:
        """One image to show, [1, height, width, channel]."""
        return pixels(self.loaded, picture.x[None])

    def facts(self) -> Mapping[str, Any]:
        """What every viewer of tokens must know, and the address of this view."""
        config = self.loaded.config
        where: dict[str, Any] = {"model": self.subject.name}
        where |= {"step": self.subject.steps[self.index]} if len(self.subject.steps) > 1 else {}
        where |= {"image": self.picture.example} if self.picture.example >= 0 else {}
        return {
            "layers": config.n_layers,
            "heads": config.n_heads,
            "grid": config.grid[1:],
            "prefix": prefix_names(self.loaded),
            "caption": self.picture.caption,
            "where": {**where, "view": self.tab},
        }


def opened(subject: Subject, tab: str = "attention", question: Question | None = None) -> Session:
    """A model on its first example, at the end of its training.

    Raises:
        PrismaError: it has no checkpoint or example, or they cannot be read.
    """
    picture = subject.example(0)
    corrupt = subject.other_example(picture)
    asked = default_question(subject, picture, corrupt, question)
    return Session(subject, len(subject.steps) - 1, picture, corrupt, asked, tab)
