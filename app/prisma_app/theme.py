"""How the page looks around the viewers: a quiet theme with one accent, light and dark."""

from typing import Any

import gradio as gr

HEADER = """
<header class="pz-header">
  <svg viewBox="0 0 40 36" width="34" height="31" aria-hidden="true">
    <path d="M1 21 15 17" stroke="currentColor" stroke-width="1.6" fill="none"/>
    <path d="M26 17 39 12" stroke="#c2503f" stroke-width="1.8"/>
    <path d="M26.500 19 39 18.500" stroke="#c99a2e" stroke-width="1.8"/>
    <path d="M27 21 39 25" stroke="#3d6fb5" stroke-width="1.8"/>
    <path d="M20 3 36 33H4Z" stroke="currentColor" stroke-width="1.8" stroke-linejoin="round" fill="none"/>
  </svg>
  <h1>Prisma</h1><p>See how a vision transformer thinks, at any step of its training.</p>
</header>
"""
CSS = """
.dark { --color-accent: #8fa8ec; }
.gradio-container { width: 100% !important; max-width: 1240px !important; margin: 0 auto !important; }
.gradio-container > main { padding: 18px 20px !important; }
.pz-header { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center; padding: 6px 0 2px; }
.pz-header h1 { margin: 0; font-size: 25px; font-weight: 700; letter-spacing: -.01em; }
.pz-header p { margin: 3px 0 0; color: var(--body-text-color-subdued); font-size: 15px; }
.pz-help, .pz-help p { color: var(--body-text-color-subdued) !important; font-size: 14px; }
#pz-question input { padding-right: 22px !important; text-overflow: ellipsis; }
.pz-refused { max-width: 80ch; padding: 8px 0 120px; font-size: 15px; }
.form { gap: 12px !important; border: 0 !important; background: transparent !important; box-shadow: none !important; }
#pz-upload { align-self: flex-start; width: auto; min-width: 150px; }
footer { opacity: .75; }
@media (max-width: 520px) { .gradio-container > main { padding: 10px 14px !important; } }
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
