"""A card is a template with facts: no gaps, and no fact that is left out."""

import pytest
from jinja2 import UndefinedError

from prisma.publish import rendering
from prisma.publish.rendering import rendered


def test_text_of_strangers_stays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UndefinedError, match="metadata"):
        rendered("dataset.md", {})
    assert {"text", "code", "cell", "fenced", "bibtex", "number", "n"} <= rendering._template(
        "model.md"
    ).environment.filters.keys()
