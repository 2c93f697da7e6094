"""Mice that learn from digits without labels: one gives back all pixels, the other those of patches it did not see.

    prisma train digits-reconstruction
    prisma train digits-masked

`digits-reconstruction` is an autoencoder of patches. Each of its 4 patches of 16 pixels has a token of 6 numbers, so it
has to find the 24 numbers that tell most of an image of 64 pixels.

`digits-masked` is a masked autoencoder (He et al. 2111.06377): it sees 4 of the 16 patches of an image, and a decoder
of one block, which is thrown away, gives the pixels of the other 12, each patch less its mean and over its standard
deviation.
"""

from prisma.config import ViTConfig
from prisma.train import Recipe, TrainConfig

RECONSTRUCTION = Recipe(
    name="digits-reconstruction",
    task="digits",
    model=ViTConfig(
        image_size=8, patch_size=4, channels=1, n_layers=2, d_model=6, n_heads=2, d_mlp=64, n_classes=16, pool="mean"
    ),
    training=TrainConfig(
        steps=3000,
        batch_size=64,
        lr=1e-2,
        warmup=100,
        weight_decay=0.0,
        checkpoint_every=500,
        objective="reconstruction",
    ),
    license="mit",
)
MASKED = Recipe(
    name="digits-masked",
    task="digits",
    model=ViTConfig(
        image_size=8, patch_size=2, channels=1, n_layers=2, d_model=64, n_heads=4, d_mlp=128, n_classes=0, pool="mean"
    ),
    training=TrainConfig(
        steps=3000,
        batch_size=128,
        lr=2e-3,
        warmup=200,
        weight_decay=0.05,
        checkpoint_every=500,
        shift=0.5,
        turn=10.0,
        objective="masked",
        norm_pixels=True,
    ),
    license="mit",
)
