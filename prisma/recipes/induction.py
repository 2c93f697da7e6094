"""A mouse that compares two glyphs: one layer, attention only, 17 tokens.

prisma train induction
"""

from prisma.config import ViTConfig
from prisma.train import Recipe, TrainConfig

INDUCTION = Recipe(
    name="induction",
    task="induction",
    model=ViTConfig(
        image_size=32,
        patch_size=8,
        channels=1,
        n_layers=1,
        d_model=128,
        n_heads=8,
        d_mlp=0,
        n_classes=4,
        pool="class_mean",
    ),
    training=TrainConfig(
        steps=5000,
        batch_size=64,
        lr=3e-3,
        warmup=100,
        weight_decay=1.0,
        checkpoint_every=250,
    ),
)
