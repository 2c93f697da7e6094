"""The class-embedding space: what tokens, layers and weights say about each class. Vilas et al. 2310.18969."""

from prisma.analysis.class_space.class_identifiability import class_identifiability
from prisma.analysis.class_space.class_projection import class_projection, project
from prisma.analysis.class_space.class_values import class_values

__all__ = ["class_identifiability", "class_projection", "class_values", "project"]
