"""Fourier components of a model that adds: at which frequencies does it know the numbers, and what do they give?

An image shows two numbers a and b below p, and its class is s = (a + b) mod p. A network may learn this by waves: it
embeds the numbers as cos(2 pi k a / p) and sin(2 pi k a / p) for a few *key frequencies* k, multiplies, and answers

    logit of c  =  sum over k of  alpha_k cos(2 pi k (s - c) / p)

Three readings, each of which is a discrete Fourier transform over the p numbers:

    embedding     u(a) of the sum of tokens after the embedding, x(a, b) = u(a) + u(b), found by least squares over the
                  images: the power of u at each frequency
    logits        m(s), the mean of the logits over images of the sum s: the power of m at each frequency, as a share
                  of the variance of the logits
    contribution  alpha_k of each image alone, (2 / p) sum over c of (logit of c) cos(2 pi k (s - c) / p). They add up
                  to the logit of the right class minus the mean over classes

and two ablations of the logits. *Restricted*: of the logits of an image only the mean and the parts of m(s) at the key
frequencies are kept. *Excluded*: these parts alone are taken away from the logits.

Source: Nanda et al. 2301.05217, whose inputs are tokens. What is transferred: where a token has one row of the
embedding matrix, u(a) is what the drawn number adds to the sum of the image's tokens. They have all p^2 pairs; here
sums have different numbers of pairs (no a = b), so all sums count alike, and their waves are orthogonal again.

Shapes: B image, P number, sum or class, K frequency (1 ... p // 2), F feature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.border import guarded, record
from prisma.analysis.result import Result
from prisma.batching import inputs_per_pass
from prisma.errors import PrismaError, quoted
from prisma.numbers import exact
from prisma.view.figures.frequencies import draw_frequencies
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEY_SHARE = 0.9
"""By default the key frequencies are the fewest with so much of the power of all frequencies in the logits."""
SMALL = 1e-6
"""An eigenvalue below counts as none: the numbers cannot be told apart by the images."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FourierComponents(Result):
    """The power of each frequency in embedding and logits, and the loss with and without the key frequencies.

    Index k - 1 of the axis `frequency` is frequency k. `metadata["frequencies"]` are the key frequencies.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "contribution": ("image", "frequency"),
        "loss": ("image",),
        "restricted_loss": ("image",),
        "excluded_loss": ("image",),
        "embedding": ("frequency",),
        "logits": ("frequency",),
        "training_excluded_loss": ("training_image",),
    }

    UNDEFINED: ClassVar[frozenset[str]] = frozenset({"embedding", "logits"})  # where nothing differs between images

    contribution: Tensor  # what each frequency adds to the right logit, minus the mean logit
    loss: Tensor  # cross entropy in nats
    restricted_loss: Tensor  # with the key frequencies alone
    excluded_loss: Tensor  # without them
    embedding: Tensor  # share of the squared length of the numbers' embeddings
    logits: Tensor  # share of the variance of the logits
    training_excluded_loss: Tensor | None = None  # of training images, where these are the test images of a task

    @property
    def frequencies(self) -> list[int]:
        """The key frequencies, those with the largest part of the logits first unless they were given."""
        return list(self.metadata["frequencies"])

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"frequency": [str(k + 1) for k in range(len(self.logits))]}

    def report(self, classes: Sequence[str] = ()) -> str:
        """The key frequencies, their shares, and the losses."""
        keys = [k - 1 for k in self.frequencies]
        shares = (
            f"{self.logits[keys].sum():.2f} of the logits' variance, {self.embedding[keys].sum():.2f} of embeddings"
        )
        losses = {
            name: getattr(self, name)
            for name in ("loss", "restricted_loss", "excluded_loss", "training_excluded_loss")
            if getattr(self, name) is not None
        }
        return "\n".join(
            [
                f"key frequencies: {', '.join(map(str, self.frequencies))} ({shares})",
                *(f"{name.replace('_', ' ')}: {x.double().mean():.3g}" for name, x in losses.items()),
            ]
        )

    def plot(self, array: str | None = None) -> "Figure":
        """The power of each frequency in the embedding and in the logits, or a picture of another array."""
        if array is not None:
            return super().plot(array)
        shares = {"embeddings of the numbers": self.embedding, "logits": self.logits}
        return draw_frequencies(shares, self.frequencies, title=f"Fourier components modulo {self.metadata['modulus']}")


@guarded
@torch.no_grad()
def fourier_components(
    model: ViT,
    images: Tensor,
    numbers: Tensor,
    *,
    frequencies: Sequence[int] | None = None,
    batch: int | None = None,
) -> FourierComponents:
    """At which frequencies does a model that adds modulo p know the numbers, and how far do they give its answer?

    A few frequencies with nearly all of `embedding` and `logits` are a sign that the model adds by waves. It is one
    only together with the losses: `restricted_loss` near `loss` (the key frequencies are enough) and `excluded_loss`
    near ln p or above (nothing else gives the answer). A model that knows its training images by heart has a low
    `excluded_loss` on them.

    Args:
        images: all pairs of numbers, or so many that each sum is there, and each number in several pairs.
        numbers: [image, 2], the two numbers below p that each image shows; p is the number of the model's classes, and
            the right class is their sum modulo p.
        frequencies: the key frequencies, from 1 to p // 2. By default the fewest that have 90 % of the power of all
            frequencies in the logits. Over a training, give those of the last checkpoint.
        batch: images in one pass; by default as many as fit in 256 MiB.

    Returns:
        `contribution` [image, frequency], in logits; `loss`, `restricted_loss` and `excluded_loss` [image], in nats;
        `embedding` and `logits` [frequency], shares from 0 to 1.

    Raises:
        PrismaError: a model without classes; numbers of another shape, or not below p; a sum without an image; numbers
            whose embeddings these pairs leave open; frequencies out of range, none, or one that is given twice.

    Source: Nanda et al. 2301.05217.
    """
    modulus = model.config.n_classes
    numbers = _expect_numbers(images, numbers, modulus)
    sums = numbers.sum(1) % modulus
    tokens, logits = _run(model, images, batch)
    by_sum = _mean_by_sum(logits, sums, modulus)
    power, mean = power_of(by_sum), by_sum.mean(0)
    if frequencies is None:
        keys = _key_frequencies(_share(power, power.sum(), logits))
    else:
        keys = _expect_frequencies(frequencies, modulus)
    kept = parts_at(by_sum, keys)[sums]
    variance = _mean_by_sum((logits - mean).square().sum(1), sums, modulus).mean()
    embedding = power_of(_embeddings(tokens, numbers, modulus))
    loss, restricted, excluded = (
        F.cross_entropy(x, sums, reduction="none") for x in (logits, mean + kept, logits - kept)
    )
    found = {
        "contribution": contributions(logits, sums), "loss": loss, "restricted_loss": restricted,
        "excluded_loss": excluded, "embedding": _share(embedding, embedding.sum(), tokens),
        "logits": _share(power, variance, logits),
    }  # fmt: skip
    chosen = "by power in the logits" if frequencies is None else "given"
    settings = {"analysis": "fourier_components", "modulus": modulus, "frequencies": keys, "chosen": chosen}
    kind = exact(model.embed.prefix).dtype
    return FourierComponents(metadata=settings, **{name: x.to(kind) for name, x in found.items()})


def power_of(x_PF: Tensor) -> Tensor:
    """The mean squared length, over the p numbers, of the part at each frequency 1 ... p // 2 [frequency]."""
    n = len(x_PF)
    spectrum = torch.fft.rfft(x_PF, dim=0)[1:].abs().square().flatten(1).sum(1) / n**2
    return spectrum * _sides(n, spectrum)


def parts_at(x_PF: Tensor, frequencies: Sequence[int]) -> Tensor:
    """The parts of a function of the numbers at some frequencies, without the mean [number, feature]."""
    spectrum = torch.fft.rfft(x_PF, dim=0)
    chosen = torch.zeros_like(spectrum)
    chosen[list(frequencies)] = spectrum[list(frequencies)]
    return torch.fft.irfft(chosen, n=len(x_PF), dim=0)


def contributions(logits_BP: Tensor, sums_B: Tensor) -> Tensor:
    """What each frequency adds to the logit of the right class, minus the mean over classes [image, frequency]."""
    n = logits_BP.shape[1]
    spectrum = torch.fft.rfft(logits_BP, dim=1)[:, 1:]
    k = torch.arange(1, n // 2 + 1, device=sums_B.device).to(logits_BP)
    angle = 2 * torch.pi / n * (sums_B[:, None] * k)
    return torch.polar(torch.ones_like(angle), angle).mul(spectrum).real / n * _sides(n, logits_BP)


def _sides(n: int, like: Tensor) -> Tensor:
    """How many terms of a discrete transform each frequency has: cosine and sine, but at n / 2 only the cosine."""
    sides = torch.full((n // 2,), 2.0, dtype=like.dtype, device=like.device)
    if n % 2 == 0:
        sides[-1] = 1
    return sides


def _run(model: ViT, images: Tensor, batch: int | None) -> tuple[Tensor, Tensor]:
    """(sum of the tokens after the embedding [image, feature], logits [image, class]), in float64."""
    tokens, logits = [], []
    for some in images.split(inputs_per_pass(model, batch)):
        own, acts = record(model, some, ["embed"])
        tokens.append(acts["embed"].double().sum(1))
        logits.append(own.double())
    return torch.cat(tokens), torch.cat(logits)


def _mean_by_sum(x: Tensor, sums: Tensor, modulus: int) -> Tensor:
    """The mean over images of each sum [sum, ...]."""
    total = x.new_zeros(modulus, *x.shape[1:]).index_add(0, sums, x)
    return total / sums.bincount(minlength=modulus).view(-1, *[1] * (x.ndim - 1))


def _embeddings(tokens_BF: Tensor, numbers: Tensor, modulus: int) -> Tensor:
    """u(a), such that x(a, b) = u(a) + u(b), by least squares [number, feature]; a constant is half of it in each."""
    counts = torch.zeros(len(numbers), modulus, dtype=torch.float64, device=numbers.device)
    counts.scatter_add_(1, numbers, torch.ones_like(numbers, dtype=torch.float64))
    normal = counts.mT @ counts
    if torch.linalg.eigvalsh(normal)[0] < SMALL:
        raise PrismaError(
            f"expected each number from 0 to {modulus - 1} in several pairs, so that their embeddings can be told "
            f"apart; found {len(numbers)} pairs that leave some of them open"
        )
    u: Tensor = torch.linalg.solve(normal, counts.mT @ tokens_BF)
    return u


def _share(power: Tensor, total: Tensor, of: Tensor) -> Tensor:
    """Shares of a whole; NaN where it is no more than the rounding of what it is computed from."""
    if total <= SMALL**2 * of.square().sum(1).mean():
        return torch.full_like(power, torch.nan)
    return power / total


def _key_frequencies(power: Tensor) -> list[int]:
    order = power.argsort(descending=True, stable=True)
    reached = power[order].cumsum(0) >= KEY_SHARE * power.sum()
    if power.isnan().any():
        raise PrismaError("expected logits that depend on the sum, to find key frequencies in; found none: give them")
    return [int(k) + 1 for k in order[: int(reached.int().argmax()) + 1]]


def _expect_frequencies(frequencies: Sequence[int], modulus: int) -> list[int]:
    found, known = list(frequencies), range(1, modulus // 2 + 1)
    if not found or len(set(found)) < len(found) or any(k not in known for k in found):
        raise PrismaError(f"expected different frequencies from 1 to {modulus // 2}; found {quoted(found)}")
    return found


def _expect_numbers(images: Tensor, numbers: Tensor, modulus: int) -> Tensor:
    """The numbers on the device of the images. Raises PrismaError: see `fourier_components`."""
    if modulus < 3:
        raise PrismaError(f"expected a model with three classes or more, the sums; found {modulus}")
    if numbers.shape != (len(images), 2) or numbers.dtype != torch.int64:
        raise PrismaError(
            f"expected two whole numbers (int64) for each of {len(images)} images; found {numbers.dtype} "
            f"{list(numbers.shape)}"
        )
    if len(numbers) and (int(numbers.min()) < 0 or int(numbers.max()) >= modulus):
        raise PrismaError(
            f"expected numbers from 0 to {modulus - 1}, below the number of classes; found {int(numbers.min())} to "
            f"{int(numbers.max())}"
        )
    counts = (numbers.sum(1) % modulus).bincount(minlength=modulus)
    if not counts.all():
        raise PrismaError(f"expected an image of each sum modulo {modulus}; found none of {int(counts.argmin())}")
    return numbers.to(images.device)
