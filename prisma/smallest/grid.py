"""The architectures among which the smallest is sought: every combination of a few sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from typing import ClassVar

from prisma.bounds import expect_within
from prisma.errors import PrismaError, quoted
from prisma.outline import outline
from prisma.train import Recipe

MOST = 2_000  # candidates
SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 1)  # of the recipe's width


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The sizes that are combined. A combination that contradicts itself, as a width of 8 with 3 heads, is none."""

    layers: tuple[int, ...]
    width: tuple[int, ...]  # d_model
    heads: tuple[int, ...]
    mlp: tuple[int, ...]  # width of the MLP as a multiple of d_model; 0: attention only
    patch: tuple[int, ...]  # pixels

    BOUNDS: ClassVar[Mapping[str, str]] = {
        "layers": "n_layers",
        "width": "d_model",
        "heads": "n_heads",
        "mlp": "mlp_ratio",
        "patch": "patch_size",
    }

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self)):
            sizes = getattr(self, name)
            if not sizes or len(set(sizes)) < len(sizes):
                raise PrismaError(f"expected different sizes for {name}; found {quoted(sizes)}")
            expect_within(self.BOUNDS[name], sizes, f"each of {name}")
            if name in ("layers", "patch") and min(sizes) < 1:
                raise PrismaError(f"expected each of {name} to be at least 1; found {min(sizes)}")

    @classmethod
    def around(cls, recipe: Recipe, **sizes: tuple[int, ...]) -> "Grid":
        """The grid of a recipe: its own sizes and smaller ones, with and without an MLP.

        Args:
            sizes: those that are given, by name, in place of the recipe's.
        """
        model = recipe.model
        own = {
            "layers": tuple(range(1, model.n_layers + 1)),
            "width": tuple(sorted({max(1, round(share * model.d_model)) for share in SHARES})),
            "heads": tuple(sorted({1, model.n_heads})),
            "mlp": tuple(sorted({0, model.d_mlp // model.d_model or 4})),
            "patch": model.patch_sides[:1],
        }
        return cls(**{**own, **sizes})


@dataclass
class Candidate:
    """An architecture, and what is known of it."""

    settings: Mapping[str, str]  # those that make it, as `prisma train RECIPE --set KEY=VALUE` takes them
    recipe: Recipe
    parameters: int
    steps: int = 0  # to which its first seed was trained
    accuracy: float = 0.0  # of the first seed, there
    finished: dict[int, float] = field(default_factory=dict)  # seed -> accuracy at the end

    @property
    def name(self) -> str:
        """Its sizes: 1l-d16-h2-m64-p8 is one layer of width 16, 2 heads, an MLP of width 64, patches of 8 pixels."""
        model = self.recipe.model
        return f"{model.n_layers}l-d{model.d_model}-h{model.n_heads}-m{model.d_mlp}-p{self.settings['patch_size']}"

    def reaches(self, target: float, seeds: Sequence[int]) -> bool:
        """Whether every seed was trained to its end, and is as accurate as the target."""
        return all(self.finished.get(seed, -1.0) >= target for seed in seeds)

    def fails(self, target: float) -> bool:
        """Whether a seed was trained to its end and is less accurate."""
        return any(accuracy < target for accuracy in self.finished.values())


def sizes_in(name: str, text: str) -> tuple[int, ...]:
    """The sizes in a text such as "1,2,4". Raises PrismaError if there are others than whole numbers in it."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        raise PrismaError(f"expected whole numbers separated by commas for {name}, such as 1,2,4; found {quoted(text)}")
    return tuple(sorted({int(part) for part in parts}))


def candidates(recipe: Recipe, grid: Grid, changed: Mapping[str, str] | None = None) -> tuple[Candidate, ...]:
    """The recipe with every architecture of the grid, from the fewest weights to the most.

    Args:
        changed: the settings in which the recipe differs from that of its name.

    Raises:
        PrismaError: no combination makes a model for the task, or there are more than 2,000.
    """
    chosen = list[tuple[dict[str, str], Recipe]]()
    for layers, width, heads, mlp, patch in product(*(getattr(grid, each.name) for each in fields(grid))):
        if width % heads:
            continue
        sizes = {"n_layers": layers, "d_model": width, "n_heads": heads, "d_mlp": mlp * width, "patch_size": patch}
        settings = {name: str(size) for name, size in sizes.items()}
        try:
            chosen.append((settings, recipe.override(settings)))
        except PrismaError:  # such as patches that do not divide the image
            continue
        if len(chosen) > MOST:
            raise PrismaError(f"expected at most {MOST:,} architectures; found more: give fewer sizes")
    if not chosen:
        raise PrismaError(
            f"expected sizes that make a model for the recipe {recipe.name}; found none: heads must divide the width, "
            f"and patches the image of {' x '.join(map(str, recipe.model.image_sides))} pixels"
        )
    found = [
        Candidate({**(changed or {}), **settings}, one, sum(x.numel() for x in outline(one.model).parameters()))
        for settings, one in chosen
    ]
    return tuple(sorted(found, key=lambda one: (one.parameters, one.name)))
