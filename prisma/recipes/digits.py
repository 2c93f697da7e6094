"""A mouse that reads handwritten digits: two layers, attention and MLP, 17 tokens.

prisma train digits
"""

from prisma.config import ViTConfig
from prisma.train import Recipe, TrainConfig

DIGITS = Recipe(
    name="digits",
    task="digits",
    model=ViTConfig(image_size=8, patch_size=2, channels=1, n_layers=2, d_model=64, n_heads=4, d_mlp=128, n_classes=10),
    training=TrainConfig(
        steps=1500,
        batch_size=32,
        lr=3e-3,
        warmup=100,
        weight_decay=0.5,
        shift=0.5,
        turn=10,
        checkpoint_every=100,
    ),
)
