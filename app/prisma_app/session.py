"""What one visitor looks at: a model, a checkpoint, an image, a tab, and the state of every tab."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prisma.loaded import Loaded
from prisma.view.browser import Packed
from prisma_app.subject import Picture, Subject, pixels, prefix_names


@dataclass(frozen=True)
class Session:
    """Everything that the page shows depends on this alone."""

    subject: Subject
    index: int  # of the checkpoint
    picture: Picture
    tab: str  # the name of the chosen tab
    states: Mapping[str, Any]  # name of a tab -> its state

    @property
    def loaded(self) -> Loaded:
        return self.subject.at(self.index)

    @property
    def labels(self) -> list[str]:
        return self.subject.labels

    def with_state(self, tab: str, state: Any) -> "Session":
        """The same session with another state of one tab."""
        return replace(self, states={**self.states, tab: state})

    def image(self, picture: Picture) -> Packed:
        """One image to show, [1, height, width, channel]."""
        return pixels(self.loaded, picture.x[None])

    def facts(self) -> Mapping[str, Any]:
        """The layers, heads and tokens of the model, which every token viewer needs, and the address of this view."""
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
