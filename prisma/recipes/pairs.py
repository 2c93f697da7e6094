"""Two mice that add two digits, each times a weight: one whose weights stay, and one for which they change.

    prisma train pairs
    prisma train pairs-varying

The image is one patch, so the mouse is a residual network of 128 pixels, 32 channels and 64 neurons, without norms, in
which attention is one more linear map. Every unit can read both digits. `pairs-varying` has other weights every 200
steps (modularly varying goals): what it can keep is what it knows of each digit. `docs/varying-goals.md` has what that
does to the modularity of the network.

3,000 steps of 128 images take about 30 seconds of one CPU core; the rate stays after its rise. Seeds: 0 for the first
weights (`init_seed`), 0 for batches and goals (`order_seed`). There is no accuracy; expected R² on the 1,000 test
images, of the goal with which each run ends: 0.913 and 0.829.
"""

from dataclasses import replace

from prisma.config import ViTConfig
from prisma.train import Recipe, TrainConfig

EVERY = 200
"""Steps, after which the goal of the varying mouse is another."""

PAIRS = Recipe(
    name="pairs",
    task="pairs",
    model=ViTConfig(
        image_size=(8, 16), patch_size=(8, 16), channels=1, n_layers=1, d_model=32, n_heads=1, d_mlp=64, n_classes=1,
        norm="none", class_token=False, positions=False, pool="mean",
    ),
    training=TrainConfig(
        steps=3000,
        batch_size=128,
        lr=3e-3,
        warmup=100,
        weight_decay=0.1,
        decay_every=3000,
        checkpoint_every=EVERY,
        objective="varying",
    ),
    license="mit",
    expected_r2=0.913,
)  # fmt: skip
PAIRS_VARYING = replace(
    PAIRS, name="pairs-varying", training=replace(PAIRS.training, goal_every=EVERY), expected_r2=0.829
)
