"""The closed form of an edit: the least change of a linear map that gives chosen inputs (keys) chosen outputs.

A linear map W is a memory of keys: W k is what it answers. Asked to answer r more for a key k, there are many changes D
with D k = r. The least of them changes old answers as little as possible, on the mean over old keys:

    min  E ||D k_old||^2 = tr(D C D^T)    with  D k = r            C = E[k k^T], the uncentred covariance of old keys
         D = r u^T / (u . k),  u = C^-1 k                              (rank one: ROME)

With n keys at once, as the rows of K, and changes R, there are two forms of one formula:

    D = V U^T,   U = C^-1 K^T,   V = R^T (old I + K C^-1 K^T)^-1

`old = 0` answers all keys exactly. `old > 0` weighs the old keys against the new ones (MEMIT): it minimises
`sum_i ||D k_i - r_i||^2 + old tr(D C D^T)`, so that keys may contradict each other.

C has a ridge, `ridge` times its mean diagonal, so that directions that the old keys never had cost something too, and
few keys are enough. All is computed in float64.

Sources: Bau et al. 2020 (2007.15646) and Meng et al. 2022 (2202.05262) for one key, Meng et al. 2023 (2210.07229) for
many; one key everywhere, as Gupta et al. 2024 (2403.07175) mend it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from prisma.checkpoint import read_tensors, to_safetensors
from prisma.errors import PrismaError, nearest, quoted, shown
from prisma.files import write_atomic
from prisma.numbers import first_not_finite

RIDGE = 1e-3
"""The default ridge, in units of the mean second moment of a key's number."""
DEPENDENT = 1e-10
"""Keys whose smallest eigenvalue, of their products in the covariance's norm with unit diagonal, is below this are not
independent: exact answers to all of them would need numbers that no float has."""
MATRIX = "matrix"


@dataclass(frozen=True, eq=False)
class Covariance:
    """How old keys spread: the matrix in whose norm an edit is least.

    Attributes:
        matrix: [feature, feature], the mean of k k^T, uncentred, in float64 on the CPU.
        n: how many keys it is the mean of.
        of: which keys they are, in words: a site, and tokens if not all: `blocks.5.mlp.post at class`.
        source: hash of the model that they were computed with (`source_of`).
    """

    matrix: Tensor
    n: int
    of: str
    source: str

    def expect_of(self, of: str, source: str, features: int) -> None:
        """Raise PrismaError unless this is of those keys, of that model, and of that many numbers."""
        if len(self.matrix) != features:
            raise PrismaError(
                f"expected a covariance of keys of {features} numbers; found one of {len(self.matrix)}: it is of "
                "another model or another layer"
            )
        if self.source != source:
            raise PrismaError(
                f"expected a covariance of this model, whose weights have the hash {shown(source[:12])}; found one of "
                f"{shown(self.source[:12])}: compute it again with this model"
            )
        if self.of != of:
            raise PrismaError(f"expected a covariance of {shown(of)}; found one of {shown(self.of)}")

    def write(self, path: Path | str) -> None:
        """Write it as safetensors, whole or not at all. Raises PrismaError if it cannot be written."""
        header = {"kind": "covariance", "n": str(self.n), "of": self.of, "source": self.source}
        write_atomic(Path(path), to_safetensors({MATRIX: self.matrix}, header))

    @classmethod
    def read(cls, path: Path | str) -> "Covariance":
        """What `write` wrote. Raises PrismaError if the file is absent, truncated, foreign or not finite."""
        tensors, header = read_tensors(Path(path))
        x, n = tensors.get(MATRIX), header.get("n", "")
        square = x is not None and x.ndim == 2 and x.shape[0] == x.shape[1] and x.dtype == torch.float64
        if header.get("kind") != "covariance" or not square or not (n.isascii() and n.isdecimal()):
            raise PrismaError(
                f"expected a covariance in {shown(path)}; found other tensors: {nearest(MATRIX, tensors)}"
            )
        assert x is not None
        _expect_finite(x, f"the covariance in {shown(path)}")
        return cls(x, int(n), header.get("of", ""), header.get("source", ""))


class SecondMoment:
    """A covariance as it is accumulated: `add` batches of keys, then take `covariance()`.

    Args:
        of, source: as in `Covariance`.
    """

    def __init__(self, of: str, source: str) -> None:
        self.of, self.source = of, source
        self.n = 0
        self._sum: Tensor | None = None

    def add(self, keys: Tensor) -> None:
        """Add keys [..., feature]. Raises PrismaError if one is not finite or has another number of features."""
        rows = keys.detach().flatten(0, -2)
        rows = rows.cpu().double() if rows.device.type == "mps" else rows.double()  # mps has no float64
        if self._sum is not None and rows.shape[-1] != len(self._sum):
            raise PrismaError(f"expected keys of {len(self._sum)} numbers; found {rows.shape[-1]}")
        _expect_finite(rows, "the keys")
        product = rows.T @ rows
        self._sum = product if self._sum is None else self._sum + product
        self.n += len(rows)

    def covariance(self) -> Covariance:
        """The mean over all keys so far. Raises PrismaError if there were none."""
        if self._sum is None or not self.n:
            raise PrismaError(f"expected keys of {shown(self.of)}; found none")
        return Covariance((self._sum / self.n).cpu(), self.n, self.of, self.source)


def least_change(
    keys: Tensor, changes: Tensor, covariance: Covariance, *, ridge: float = RIDGE, old: float = 0.0
) -> tuple[Tensor, Tensor]:
    """What must be added to a linear map so that its answers to some keys change in some way, and others the least?

    The map's own weight is not needed, and neither is its bias.

    Args:
        keys: [key, in].
        changes: [key, out], what is to be added to the map's answer to each key.
        covariance: of the old keys, [in, in].
        ridge: added to its diagonal, in units of the mean of its diagonal.
        old: how much old keys count against the new ones. 0: the new answers are exact.

    Returns:
        u [in, key] and v [out, key], float64 on the CPU, the change being `v @ u.T`.

    Raises:
        PrismaError: shapes that do not fit, numbers that are not finite, a negative `ridge` or `old`, a covariance that
            is singular without a larger ridge, or, with `old = 0`, keys that depend on each other.
    """
    K, R = keys.detach().cpu().double(), changes.detach().cpu().double()
    features = len(covariance.matrix)
    if K.ndim != 2 or R.ndim != 2 or not len(K) or len(K) != len(R) or K.shape[1] != features:
        raise PrismaError(
            f"expected keys [key, {features}], as the covariance has, and as many changes [key, out]; found "
            f"{list(K.shape)} and {list(R.shape)}"
        )
    if not 0 <= ridge < float("inf") or not 0 <= old < float("inf"):
        raise PrismaError(f"expected ridge and old of at least 0; found {quoted(ridge)} and {quoted(old)}")
    _expect_finite(K, "the keys")
    _expect_finite(R, "the changes")
    U = torch.cholesky_solve(K.T, _factor(covariance, ridge))
    products = K @ U  # the keys' products in the norm of C^-1
    if old == 0:
        _expect_independent(products)
    return U, torch.linalg.solve(products + old * torch.eye(len(K), dtype=K.dtype), R).T


def _factor(covariance: Covariance, ridge: float) -> Tensor:
    """The Cholesky factor of the covariance with its ridge."""
    C = covariance.matrix
    L, failed = torch.linalg.cholesky_ex(C + ridge * C.diagonal().mean() * torch.eye(len(C), dtype=C.dtype))
    if int(failed) or not bool(L.isfinite().all()):
        raise PrismaError(
            f"expected a covariance that can be inverted; found a singular one, of {covariance.n:,} keys of {len(C)} "
            f"numbers: use a ridge larger than {ridge:g}, or more keys"
        )
    return L


def _expect_independent(products: Tensor) -> None:
    lengths = products.diagonal().sqrt()
    if not bool((lengths > 0).all()):
        raise PrismaError("expected keys with numbers other than 0; found a key that is all 0")
    smallest = torch.linalg.eigvalsh(products / lengths / lengths[:, None])[0]
    if smallest < DEPENDENT:
        raise PrismaError(
            f"expected keys that do not depend on each other; found {len(products)} that do, so that no change gives "
            "all of them their answers: use their mean, fewer keys, or old > 0"
        )


def _expect_finite(x: Tensor, what: str) -> None:
    if not bool(x.isfinite().all()):
        raise PrismaError(f"expected finite numbers in {what}; found {first_not_finite(x)}")
