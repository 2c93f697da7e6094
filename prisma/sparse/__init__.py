"""Sparse coders: train them on any site of a model, splice them in, measure them against what is known."""

from prisma.sparse.coders import Coder, CoderConfig
from prisma.sparse.evaluation import evaluate
from prisma.sparse.files import read_coder, write_coder
from prisma.sparse.jobs import Wanted
from prisma.sparse.latent_attribution import latent_attribution
from prisma.sparse.latent_circuit import LatentCircuit, latent_circuit
from prisma.sparse.latent_edges import LatentEdges, latent_edges
from prisma.sparse.latent_nodes import LatentEffects
from prisma.sparse.latent_patching import latent_patching
from prisma.sparse.latent_target import Latent
from prisma.sparse.latents import Latents, latents
from prisma.sparse.loading import load_coder
from prisma.sparse.shards import Shards, write_activations
from prisma.sparse.splicing import Splice
from prisma.sparse.training import train, train_many

__all__ = [
    "Coder",
    "CoderConfig",
    "Latent",
    "LatentCircuit",
    "LatentEdges",
    "LatentEffects",
    "Latents",
    "Shards",
    "Splice",
    "Wanted",
    "evaluate",
    "latent_attribution",
    "latent_circuit",
    "latent_edges",
    "latent_patching",
    "latents",
    "load_coder",
    "read_coder",
    "train",
    "train_many",
    "write_activations",
    "write_coder",
]
