"""The mice of ImageNet-1k: one to four layers, with and without MLPs. Which of 1,000 classes? 197 tokens, or 50.

    prisma train imagenet-tiny-full --data /data/imagenet
    prisma train --table imagenet --data /data/imagenet   # all nine, beside the accuracies that were published

ViT-Prisma published nine mice in 2024: tiny, base, small and medium, of one to four layers, each full (attention and
MLP) and attention only, with patches of 16; and one of three layers with patches of 32. Of their cards are the sizes
(but the width, which is that of their files: 768), no norms, 4 heads and the accuracies. The learning rate, weight
decay, batch, length and seeds were not published. Those here are ours: ViT-Prisma's present defaults of rate and batch,
as many epochs as their files have checkpoints (26, and 43), half a cosine, and a decay of 0.05.

`--data` is a folder with train/ and val/, a subfolder for each class; or the archive as Kaggle packs it, unpacked. Its
pictures are decoded once, to 224 pixels, into a file of 200 GB.

Seeds: 0 for the first weights (`init_seed`), 0 for the batches (`order_seed`). They were not trained here, so neither
their seconds nor our accuracy are known: the accuracy that is stated is the published one (of the mouse with patches of
32 its README says 0.22 and its card 0.2148).

Two more learn from the pixels alone, of which ViT-Prisma had the idea and no table: `imagenet-reconstruction`, whose
tokens of 192 numbers give back the 768 of a patch, and `imagenet-masked`, a masked autoencoder of four layers. They are
settings, and were not trained here either.
"""

from collections.abc import Mapping

from prisma.config import ViTConfig
from prisma.train import Recipe, TrainConfig

BATCH = 512
EPOCH = 1_281_167 // BATCH  # steps
TABLE = "imagenet"
LAYERS: Mapping[str, int] = {"tiny": 1, "base": 2, "small": 3, "medium": 4}
KINDS: Mapping[str, int] = {"full": 3072, "attn": 0}  # width of the MLPs
ACCURACIES: Mapping[str, float] = {  # top 1 of 1,000 classes
    "tiny-full": 0.16,
    "tiny-attn": 0.11,
    "base-full": 0.23,
    "base-attn": 0.16,
    "small-full": 0.28,
    "small-attn": 0.17,
    "medium-full": 0.33,
    "medium-attn": 0.17,
}
PATCH_32 = 0.2148


def _recipe(name: str, layers: int, d_mlp: int, patch: int, epochs: int, accuracy: float) -> Recipe:
    return Recipe(
        name,
        "imagenet",
        ViTConfig(
            image_size=224,
            patch_size=patch,
            n_layers=layers,
            d_model=768,
            n_heads=4,
            d_mlp=d_mlp,
            n_classes=1000,
            norm="none",
            qkv_bias=False,
        ),
        TrainConfig(
            steps=epochs * EPOCH,
            batch_size=BATCH,
            lr=3e-4,
            warmup=EPOCH,
            weight_decay=0.05,
            checkpoint_every=EPOCH,
            init="kaiming",
            precision="bfloat16",
        ),
        expected_accuracy=accuracy,
        published_accuracy=accuracy,
    )


IMAGENET = (
    *(
        _recipe(f"imagenet-{size}-{kind}", layers, d_mlp, 16, 26, ACCURACIES[f"{size}-{kind}"])
        for size, layers in LAYERS.items()
        for kind, d_mlp in KINDS.items()
    ),
    _recipe("imagenet-small-full-patch32", LAYERS["small"], KINDS["full"], 32, 43, PATCH_32),
)


def _of_pixels(objective: str, width: int, n_classes: int) -> Recipe:
    return Recipe(
        f"imagenet-{objective}",
        "imagenet",
        ViTConfig(
            image_size=224,
            patch_size=16,
            n_layers=4,
            d_model=width,
            n_heads=4,
            d_mlp=4 * width,
            n_classes=n_classes,
            pool="mean",
        ),
        TrainConfig(
            steps=26 * EPOCH,
            batch_size=BATCH,
            lr=3e-4,
            warmup=EPOCH,
            weight_decay=0.05,
            checkpoint_every=EPOCH,
            precision="bfloat16",
            objective=objective,
            norm_pixels=objective == "masked",
            decoder_d_model=256 if objective == "masked" else 32,
        ),
    )


PIXELS = (_of_pixels("reconstruction", 192, 3 * 16 * 16), _of_pixels("masked", 768, 0))
