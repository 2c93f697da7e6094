"""The Gradio app: look inside a model at any training step. It imports prisma; prisma does not import it."""

import os

# Gradio reads these when it is imported. The app sends no usage data.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
