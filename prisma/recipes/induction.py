"""Mice that compare glyphs: two of them (monogenic induction), or a pattern of four (polygenic).

    prisma train induction

One layer, attention only, 17 tokens. 5,000 steps of 64 images take about 75 seconds of one CPU core. As in
ViT-Prisma's settings for this task, images of 32x32 come in patches of 8, the width is 128 and there is no MLP. The
differences: 8 heads instead of 4, a LayerNorm before the attention, and a readout of the class token and the mean of
the patches.

Seeds: 0 for the first weights (`init_seed`), 0 for the batches (`order_seed`). Expected test accuracy on the 656 test
images: 1.000; with `--set init_seed=1` and `2` it is 0.983 and 0.980. Another processor or version of torch may
change the last bits of the weights, and so the answers to some images.

    prisma train induction-polygenic

Two layers, attention and MLP, 65 tokens. 3,000 steps of 64 images take about 320 seconds of one
CPU core, a fifth of it for the accuracies at checkpoints. For the first quarter the mouse tells a row from a column and
nothing else; then it begins to compare glyphs. It is a mouse for a few minutes: more steps make it better. With the
same seeds, expected test accuracy on the 3,540 test images: 0.625; chance is 0.083.
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
    license="mit",
    expected_accuracy=1.000,
)
POLYGENIC = Recipe(
    name="induction-polygenic",
    task="induction-polygenic",
    model=ViTConfig(
        image_size=64,
        patch_size=8,
        channels=1,
        n_layers=2,
        d_model=64,
        n_heads=4,
        d_mlp=128,
        n_classes=12,
        pool="class_mean",
    ),
    training=TrainConfig(
        steps=3000,
        batch_size=64,
        lr=2e-3,
        warmup=100,
        weight_decay=0.1,
        checkpoint_every=500,
    ),
    license="mit",
    expected_accuracy=0.625,
)
