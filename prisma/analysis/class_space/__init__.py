"""The class-embedding space: what tokens, layers and weights say about each class. Vilas et al. 2310.18969."""

from prisma.analysis.class_space.attention_perturbation import attention_edits, attention_perturbation
from prisma.analysis.class_space.class_identifiability import class_identifiability
from prisma.analysis.class_space.class_projection import class_projection, project
from prisma.analysis.class_space.class_similarity_change import class_similarity_change
from prisma.analysis.class_space.class_values import class_values
from prisma.analysis.class_space.in_one_pass import in_one_pass
from prisma.analysis.class_space.linear_probes import linear_probes
from prisma.analysis.class_space.memories import memories
from prisma.analysis.class_space.token_perturbation import token_perturbation

__all__ = [
    "attention_edits",
    "attention_perturbation",
    "class_identifiability",
    "class_projection",
    "class_similarity_change",
    "class_values",
    "in_one_pass",
    "linear_probes",
    "memories",
    "project",
    "token_perturbation",
]
