"""A mouse that adds modulo 60, also pairs that it was not trained on: one layer, attention and MLP, 5 tokens.

    prisma train circle

8,000 steps of 256 images take about 120 seconds of one CPU core. Patches are the quadrants. The mouse memorises the
885 training pairs within 300 steps, stays at chance on the test pairs until step 800, and is right on all of them from
step 2,400: this is known as grokking (Power et al. 2022, arXiv 2201.02177). It needs a high learning rate and a strong
weight decay for many steps: with a decay of 0.3, or 4,000 steps, less than a fifth of the test pairs are right at the
end.

Seeds: 0 for the first weights (`init_seed`), 0 for the batches (`order_seed`). Expected test accuracy on the 885 test
pairs: 1.000; with `--set init_seed=1` and `2` it is 1.000 too. Another processor or version of torch may change the
last bits of the weights, and so the answers to some pairs.
"""

from prisma.config import ViTConfig
from prisma.train import Recipe, TrainConfig

CIRCLE = Recipe(
    name="circle",
    task="circle",
    model=ViTConfig(
        image_size=32,
        patch_size=16,
        channels=1,
        n_layers=1,
        d_model=64,
        n_heads=4,
        d_mlp=256,
        activation="relu",
        n_classes=60,
    ),
    training=TrainConfig(
        steps=8000,
        batch_size=256,
        lr=2e-3,
        warmup=10,
        weight_decay=1.0,
        checkpoint_every=400,
    ),
    license="mit",
    expected_accuracy=1.000,
)
