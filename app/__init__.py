"""The Gradio app: look inside a published mouse at any training step. It imports prisma, never the other way."""

import os

# Read when gradio is imported: the app reports nothing to anyone.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
