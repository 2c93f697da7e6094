"""The page around the viewer asks nothing of the network."""

from prisma_app.theme import CSS, HEAD, theme


def test_fonts_and_styles_are_local() -> None:
    assert theme()._stylesheets == []  # what would be fetched from elsewhere
    for text in (CSS, HEAD):
        assert "http" not in text
        assert "url(" not in text
