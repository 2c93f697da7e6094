"""UCI handwritten digits: 1,797 real 8x8 images that scikit-learn ships; stratified split 1,437 / 360, fixed.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998),
https://doi.org/10.24432/C50P49, CC BY 4.0; the test part, as packaged by scikit-learn (BSD-3).
"""

import torch

from prisma.data.task import SEED, Split, Task
from prisma.data.transform import Transform


def _make() -> tuple[Split, Split]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    targets = torch.tensor(labels, dtype=torch.int64)
    train, test = train_test_split(
        torch.arange(len(targets)).numpy(), test_size=360, stratify=labels, random_state=SEED
    )
    return Split(images[train], targets[train]), Split(images[test], targets[test])


DIGITS = Task(
    name="digits",
    summary="Which digit is it? 1,797 handwritten digits of 8x8 pixels, 1,437 to train on and 360 to test.",
    source="UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), CC BY 4.0, via scikit-learn",
    labels=tuple(str(digit) for digit in range(10)),
    transform=Transform(size=(8, 8), mean=(0.305,), std=(0.376,)),
    make=_make,
    sha256="3616d13d9b8a0a7a70107bddfd1b1572ec4785e7884f0571b848e039b01e1a3f",
    license="cc-by-4.0",
)
