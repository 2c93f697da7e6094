"""`python -m prisma`: the `prisma` command, as launchers of processes start it."""

from prisma.cli import main

if __name__ == "__main__":
    main()
