"""How well coders reconstruct, and how they use their latents: every number is defined here, and only here.

| name | definition |
|---|---|
| fvu | sum_i abs(x_i - y_i)^2 / sum_i abs(x_i - mean)^2, with their mean vector: 0 is perfect, 1 the mean |
| l0 | active latents of a token, on average |
| l1 | the sum of a token's latents, on average |
| cosine | between a token's activation and its reconstruction, on average |
| length | length of the reconstructions / length of the activations: below 1 is shrinkage |
| relative_bias | mean abs(y)^2 / mean (x . y): 1 is unbiased, below 1 is shrinkage (2404.16014) |
| dead | share of the latents that were active on none of `n_tokens` tokens |
| dense_1, dense_10 | share of all activity that is of latents active on more than 1 % and 10 % of the tokens |
| per_image | active tokens of a latent in an image where it is active at all, on average |
| legacy_ev | 1 - the mean over tokens of abs(x_i - y_i)^2 / abs(x_i - mean)^2; only to compare with published numbers |

Sums are in float64 and added up batch by batch; no number depends on how tokens were put into batches. A few large
tokens can hide the rest in a pooled FVU, so numbers are given for each kind of token too (`evaluation`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.errors import PrismaError
from prisma.sparse.coders import Coder, unit

ROWS = 1024  # of a matrix of cosines at a time


class Sums:
    """Sums over tokens from which all numbers of the table follow. `add` batches, then read `row`."""

    def __init__(self, d: int, m: int, *, device: torch.device | str = "cpu") -> None:
        self.n, self.images = 0, 0
        self.error = self.squares = self.guessed = self.product = self.cosines = self.l1 = 0.0
        self.sum = torch.zeros(d, dtype=torch.float64, device=device)
        self.active = torch.zeros(m, dtype=torch.float64, device=device)  # tokens on which a latent was active
        self.in_images = torch.zeros(m, dtype=torch.float64, device=device)  # images in which it was

    def add(self, y: Tensor, guess: Tensor, z: Tensor) -> None:
        """Tokens of some images: activations and reconstructions [image, token, d], codes [image, token, m]."""
        on = z != 0
        self.active += on.sum((0, 1), dtype=torch.float64)
        self.in_images += on.any(1).sum(0, dtype=torch.float64)
        self.l1 += z.abs().sum(dtype=torch.float64).item()
        self.images += len(y)
        x, g = y.double().flatten(0, 1), guess.double().flatten(0, 1)
        self.n += len(x)
        self.sum += x.sum(0)
        self.error += (x - g).square().sum().item()
        self.squares += x.square().sum().item()
        self.guessed += g.square().sum().item()
        self.product += (x * g).sum().item()
        self.cosines += torch.cosine_similarity(x, g, dim=-1).sum().item()

    @property
    def spread(self) -> float:
        """The sum of squared distances of all tokens from their mean."""
        return self.squares - self.sum.square().sum().item() / self.n

    @property
    def density(self) -> Tensor:
        """[m]: the share of the tokens on which each latent is active."""
        return self.active / self.n

    def row(self) -> dict[str, float]:
        """The numbers of the table, by name. Raises PrismaError: there are no tokens, or they are all the same."""
        if not self.n or self.spread <= 1e-12 * self.squares:
            raise PrismaError(
                f"expected tokens that differ, to compare errors with their spread; found {self.n:,} equal ones"
            )
        activity = max(self.active.sum().item(), 1.0)
        density = self.density
        return {
            "fvu": self.error / self.spread,
            "l0": self.active.sum().item() / self.n,
            "l1": self.l1 / self.n,
            "cosine": self.cosines / self.n,
            "length": (self.guessed / self.squares) ** 0.5,
            "relative_bias": self.guessed / self.product if self.product else float("nan"),
            "dead": (self.active == 0).double().mean().item(),
            "dense_1": self.active[density > 0.01].sum().item() / activity,
            "dense_10": self.active[density > 0.1].sum().item() / activity,
            "per_image": activity / max(self.in_images.sum().item(), 1.0),
            "n_tokens": self.n,
        }


def legacy_explained_variance(x: Tensor, guess: Tensor) -> float:
    """1 - the mean over tokens [N, d] of the ratio of a token's error to its squared distance from the mean.

    It is what several libraries and papers print. A token near the mean counts as much as a large one, so it differs
    from 1 - fvu in both directions; use it only to compare with published numbers.
    """
    x, guess = x.double(), guess.double()
    ratio = (x - guess).square().sum(-1) / (x - x.mean(0)).square().sum(-1)
    return 1 - ratio.mean().item()


def structure(coder: Coder) -> dict[str, float]:
    """How alike a coder's directions are.

    decoder_cosine, encoder_cosine: for each latent the largest cosine with another one, on average: near 1, latents are
    copies of each other; the directions of a random dictionary have what chance gives. encoder_decoder: the cosine of
    what a latent looks for and what it writes, on average; not of transcoders, whose two sides are different sites.
    """
    decoder, encoder = unit(coder.W_dec.detach().double()), unit(coder.W_enc.detach().double().T)
    found = {"decoder_cosine": _nearest(decoder), "encoder_cosine": _nearest(encoder)}
    if coder.config.target is None:
        found["encoder_decoder"] = (encoder * decoder).sum(-1).mean().item()
    return found


def _nearest(rows: Tensor) -> float:
    """The mean over rows of the largest cosine with another row."""
    if len(rows) < 2:
        return 0.0
    best = []
    for start in range(0, len(rows), ROWS):
        cosines = rows[start : start + ROWS] @ rows.T
        cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = -1
        best.append(cosines.max(-1).values)
    return torch.cat(best).mean().item()


@dataclass(frozen=True)
class Recovery:
    """How well directions or latents match known ones, each to one.

    Attributes:
        mcc: the mean over the known ones of the |cosine| or |correlation| with the one that is matched with it.
        uniqueness: the share of different ones among the nearest of each known one: below 1, some latents stand for
            several.
        matches: for each known one, the index of its match; -1 if there were too few.
        scores: for each known one, the |cosine| or |correlation| with its match; 0 without one.
    """

    mcc: float
    uniqueness: float
    matches: tuple[int, ...]
    scores: tuple[float, ...]


def matched(alike: Tensor) -> Recovery:
    """The best matching of known things with latents, each used once, of a matrix [known, latent] from 0 to 1.

    Raises:
        PrismaError: scipy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise PrismaError("matching latents with known factors needs scipy; found none: pip install scipy") from None
    table = alike.detach().double().cpu().numpy()
    rows, columns = linear_sum_assignment(-table)
    matches, scores = [-1] * len(table), [0.0] * len(table)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        matches[row], scores[row] = column, float(table[row, column])
    nearest = table.argmax(1)
    return Recovery(sum(scores) / len(scores), len(set(nearest.tolist())) / len(nearest), tuple(matches), tuple(scores))


def dictionary_recovery(directions: Tensor, known: Tensor) -> Recovery:
    """How well the rows of a decoder [m, d] recover a planted dictionary [known, d]: by |cosine|."""
    return matched((unit(known.double()) @ unit(directions.detach().double().to(known.device)).T).abs())
