"""Targeted probe perturbation: does ablating a class's latents hurt the probe of this class, and no other? (TPP)

For each class a linear probe reads whether an image has it from the mean activation of its tokens. The class's latents
are the k with the largest  max(0, mean z_j in the class - mean z_j outside) * (W_dec[j] . probe), as in SAEBench. With
drop[a, b] = accuracy of probe b minus its accuracy where the latents of class a are ablated,

    intended = mean of drop[a, a]     unintended = mean of drop[a, b], a != b     tpp = intended - unintended

High means that classes have latents of their own. Do not choose coders by it: at its usual settings it fails checks of
reliability that k-sparse probing passes (2605.18229), and it rewards a few latents that carry all of a class. Near 0 it
may also say that more than k latents carry it.

Source: SAEBench (Karvonen et al. 2503.09532).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.errors import PrismaError
from prisma.sparse.probing import regression


@dataclass(frozen=True)
class TargetedPerturbation:
    """What ablating the latents of each class does to the probes.

    Attributes:
        accuracy: [class], of each probe on test images, before anything is ablated.
        drop: [class, class], of the probe of the second where the latents of the first are ablated.
        latents: [class, k], those that are ablated; fewer count where fewer have a positive effect (-1).
    """

    accuracy: Tensor
    drop: Tensor
    latents: Tensor

    @property
    def intended(self) -> float:
        """How much the probe of a class loses without its own latents, on average."""
        return self.drop.diagonal().mean().item()

    @property
    def unintended(self) -> float:
        """How much it loses without those of another class."""
        n = len(self.drop)
        return ((self.drop.sum() - self.drop.diagonal().sum()) / (n * (n - 1))).item()

    @property
    def tpp(self) -> float:
        return self.intended - self.unintended


@torch.no_grad()
def targeted_perturbation(
    directions: Tensor,
    z: Tensor,
    x: Tensor,
    labels: Tensor,
    test_z: Tensor,
    test_x: Tensor,
    test_labels: Tensor,
    k: int,
) -> TargetedPerturbation:
    """TPP of a coder. Everything of an image is a mean over its tokens, with which ablating a latent commutes.

    Args:
        directions: [m, d], what each latent writes.
        z, x, labels: codes [n, m], activations [n, d] where the coder writes, and classes [n] of training images.
        test_z, test_x, test_labels: of other images.
        k: latents that are ablated for each class.

    Raises:
        PrismaError: fewer than two classes, a class that test images lack, or k is not from 1 to the number of latents.
    """
    if not 1 <= k <= z.shape[1]:
        raise PrismaError(f"expected k from 1 to the number of latents, {z.shape[1]}; found {k}")
    classes = labels.unique()
    if len(classes) < 2 or not torch.equal(classes, test_labels.unique()):
        raise PrismaError(
            f"expected the same two classes or more in training and test images; found {classes.tolist()} and "
            f"{test_labels.unique().tolist()}"
        )
    z, x, test_z, test_x, directions = (part.double() for part in (z, x, test_z, test_x, directions))
    own, test = labels[:, None] == classes, test_labels[:, None] == classes  # [n, class]
    probes = [regression(x, some.long()) for some in own.T]

    def right(inputs: Tensor) -> Tensor:
        """[class]: the accuracy of each probe."""
        answers = torch.stack([probe(inputs)[:, 1] > probe(inputs)[:, 0] for probe in probes], 1)
        return (answers == test).double().mean(0)

    clean, drops, chosen = right(test_x), [], []
    for some, probe in zip(own.T, probes, strict=True):
        slope = probe(directions) - probe(torch.zeros_like(directions))  # the bias cancels
        effect = (z[some].mean(0) - z[~some].mean(0)).clamp_min(0) * (slope[:, 1] - slope[:, 0])
        values, latents = effect.topk(k)
        used = latents[values > 0]
        drops.append(clean - right(test_x - test_z[:, used] @ directions[used]))
        chosen.append(torch.where(values > 0, latents, -1))
    return TargetedPerturbation(clean, torch.stack(drops), torch.stack(chosen))
