"""`python -m tests.hubserver --root DIR --port N [--token T]`: a Hub on this machine, until SIGTERM."""

import argparse
import sys
from pathlib import Path

from tests.hubserver.serving import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hubserver", description="A small Hub on this machine.")
    parser.add_argument("--root", type=Path, required=True, help="where its repositories are; made if it is not there")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; the address is the first line printed")
    parser.add_argument("--token", help="the only token that is right; without it, every token is")
    given = parser.parse_args()
    for url in serve(given.root, given.port, given.token):
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
