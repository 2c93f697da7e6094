"""Optional packages, asked for before any work is done."""

from importlib.util import find_spec

from prisma.errors import PrismaError


def expect_packages(*names: str) -> None:
    """Raise PrismaError unless all of these can be imported."""
    for name in names:
        if find_spec(name) is None:
            raise PrismaError(f"expected the package {name}, found none; pip install 'prisma-vit[train]'")
