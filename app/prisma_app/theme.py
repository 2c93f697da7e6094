"""How the page looks around the viewers: a quiet theme with one accent, light and dark."""

from typing import Any

from prisma_app.shell import gr

HEAD = '<link rel="stylesheet" href="prisma/page.css"><script defer src="prisma/page.js"></script>'
# Gradio writes the colours of the body as the system wants them, whatever the visitor chooses with the theme button.
CSS = """
body { background: var(--body-background-fill) !important; color: var(--body-text-color) !important; }
.dark { --color-accent: #8fa8ec; }
.gradio-container { width: 100% !important; max-width: none !important; margin: 0 !important; }
.gradio-container > main { padding: 14px 20px !important; max-width: none !important; }
footer { opacity: .75; }
@media (max-width: 520px) { .gradio-container > main { padding: 10px 12px !important; } }
"""


def theme() -> Any:
    """Local fonts only; greys of one hue, one blue."""
    font = (gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif")
    return gr.themes.Base(
        primary_hue="indigo", secondary_hue="slate", neutral_hue="slate", radius_size="sm", font=font
    ).set(
        body_background_fill="#fcfcfd",
        body_background_fill_dark="#12151c",
        body_text_color="#1b2130",
        body_text_color_dark="#e6e9f0",
        body_text_color_subdued="#566074",
        body_text_color_subdued_dark="#a3adbf",
        color_accent="#3f5fae",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_padding="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_text_weight="400",
        block_title_text_color="*body_text_color_subdued",
        block_title_text_color_dark="*body_text_color_subdued",
        block_shadow="none",
        block_shadow_dark="none",
        border_color_primary="#dde1e9",
        border_color_primary_dark="#323948",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#191d26",
        background_fill_secondary="#f2f4f8",
        background_fill_secondary_dark="#222733",
        input_border_width="1px",
        input_border_width_dark="1px",
        input_border_color="*border_color_primary",
        input_border_color_dark="*border_color_primary",
        input_background_fill="*background_fill_primary",
        input_background_fill_dark="*background_fill_primary",
    )
