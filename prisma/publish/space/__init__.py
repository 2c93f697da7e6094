"""A Space of the Hugging Face Hub that shows published mice: its folder, sending it, and whether it runs.

`plan` decides everything that the Space holds, `write` makes a folder of it, `send` makes or updates the Space.
"""

from prisma.publish.space.planning import Plan, plan
from prisma.publish.space.sending import Report, send
from prisma.publish.space.writing import write

__all__ = ["Plan", "Report", "plan", "send", "write"]
