"""A mouse that reads MNIST's digits: four layers, attention and MLP, 17 tokens.

    prisma train mnist --data ~/mnist

4,690 steps of 64 images are five epochs. The sizes are those of ViT-Prisma's settings for this task: patches of 7, a
width of 128, 4 heads. The norms, the learning rate and its schedule are ours. `--data` is the folder with the four
files of the set, gzipped or not; Fashion-MNIST comes in the same files.

Seeds: 0 for the first weights (`init_seed`), 0 for the batches (`order_seed`). The set does not come with the package,
and the mouse was not trained here: neither its seconds nor its accuracy are known.
"""

from prisma.config import ViTConfig
from prisma.train import Recipe, TrainConfig

MNIST = Recipe(
    name="mnist",
    task="mnist",
    model=ViTConfig(
        image_size=28, patch_size=7, channels=1, n_layers=4, d_model=128, n_heads=4, d_mlp=512, n_classes=10
    ),
    training=TrainConfig(
        steps=4690,
        batch_size=64,
        lr=1e-3,
        warmup=200,
        weight_decay=0.05,
        checkpoint_every=469,
    ),
    license="mit",
)
