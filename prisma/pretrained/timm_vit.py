"""timm's VisionTransformer."""

from prisma.pretrained.family import Family

FAMILIES: tuple[Family, ...] = ()
