"""A model by its reference: a vision transformer of Prisma, or a network as its library has it."""

from pathlib import Path

from prisma.errors import UnsupportedModelError
from prisma.loaded import Loaded, load
from prisma.pretrained.networks import Network, is_network, load_network, may_be_network


def model_of(ref: str, hub: Path | None = None) -> Loaded | Network:
    """What `prisma.load` reads, else what `load_network` does: CNNs of torchvision and timm, and networks of yours.

    Raises:
        PrismaError: there is no such model.
    """
    if is_network(ref):
        return load_network(ref)
    try:
        return load(ref, hub=hub)
    except UnsupportedModelError:
        if not may_be_network(ref):
            raise
    return load_network(ref)
