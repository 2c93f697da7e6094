"""The app as a Hugging Face Space starts it.

It shows the mice of the folder hub `hub/` beside this file, if there is one (`prisma publish RUN OWNER/NAME --hub
hub`); otherwise the published mouse of the Hugging Face Hub that the Space variable PRISMA_MODEL names.
"""

import os
import sys
from pathlib import Path

from prisma_app.main import LAUNCH, build
from prisma_app.theme import theme

from prisma.errors import PrismaError

HUB = Path(__file__).parent / "hub"

try:
    if HUB.is_dir():
        demo = build(HUB, os.environ.get("PRISMA_MODEL"))
    else:
        demo = build(None, os.environ.get("PRISMA_MODEL", "prisma/digits"))
except PrismaError as error:
    sys.exit(f"The variable PRISMA_MODEL or the folder {HUB.name}/ is wrong: {error}")

if __name__ == "__main__":
    demo.launch(theme=theme(), **LAUNCH)
