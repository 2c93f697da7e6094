"""Key-value memories: which classes do the memories of a layer write, and do the active ones fit the image's class?

A layer is a sum over memories of a coefficient times a value vector. In an MLP a memory is a neuron: its coefficient is
its activation, its value the row of W_out. In attention it is a unit of a head's z, and its value the row of W_O. With
V [class, memory] the logits that the values add, and the k (five) memories with the largest coefficients at a token:

    agreement        max over memories m of cos(E_c, v_m)                    of class c, by the weights alone
    memory_of_class  an active memory is among the k memories that raise the image's class most      (largest of V_c)
    class_of_memory  the image's class is among the k classes that an active memory raises most      (largest of V_.m)
    composed         the first class of what the layer writes is the first class of an active memory
    composition      whose first class is that of the block's output: the stream that attention reads, what attention
                     adds, what the MLP adds, or none; where n of them agree, each has 1 / n, so the shares sum to one

A memory without a coefficient (0) writes nothing and is not active. The two rates of hits are different quantities; the
published one is `memory_of_class`. Each has the same rate over all other classes beside it (`_by_chance`).

Sources: Geva et al. 2012.14913 (key-value memories); Vilas et al. 2310.18969 (of vision transformers; see `compat`.
With ln="none", in a model with norm="res_post" a value lacks the gain of its layer's own norm).

Shapes: B image, L layer, T token, N memory, K active memory, C class.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.class_space.causes import effects_by_layer
from prisma.analysis.class_space.class_values import random_control, values_of
from prisma.analysis.class_space.memory_hits import PARTS, SITES, HitReader, OwnMemories
from prisma.analysis.class_space.passes import chosen_layers, read_all
from prisma.analysis.class_space.perturbed import expect_compat
from prisma.analysis.class_space.ranks import expect_labels
from prisma.analysis.class_space.token_kinds import TokenResult, kinds_metadata
from prisma.analysis.result import Effect
from prisma.analysis.statistics import bootstrap_interval, wilcoxon
from prisma.errors import PrismaError
from prisma.view.figures.charts import draw_stages
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class Memories(TokenResult):
    """Which classes the memories of each layer write, and whether those that are active fit the image's class.

    Every rate is a share of tokens or images: compare hits with the same array `_by_chance`, `agreement` with
    `control_agreement`. `metadata["layers"]` has the numbers of the layers. Arrays of images are there if images were.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(("memory_of_class", "class_of_memory", "composed"), ("image", "layer", "token")),
        **dict.fromkeys(("memory_of_class_by_chance", "class_of_memory_by_chance"), ("image", "layer", "token")),
        "composition": ("image", "layer", "token", "part"),
        "correct": ("image",),
        "agreement": ("layer", "class"),
        "control_agreement": ("layer", "class"),
        "top_classes": ("layer", "memory", "place"),
        "top_logits": ("layer", "memory", "place"),
    }

    agreement: Tensor  # class-value agreement, a cosine
    control_agreement: Tensor | None = None  # of the same model with random weights
    top_classes: Tensor  # the classes that each memory raises most, the first first
    top_logits: Tensor  # by how much, for each unit of its coefficient
    memory_of_class: Tensor | None = None
    class_of_memory: Tensor | None = None
    memory_of_class_by_chance: Tensor | None = None  # the share of all other classes that would be hits
    class_of_memory_by_chance: Tensor | None = None
    composed: Tensor | None = None
    composition: Tensor | None = None
    correct: Tensor | None = None  # whether the model's answer is right

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"layer": [f"layer {layer}" for layer in self.metadata["layers"]], "part": PARTS}

    def listing(self, layer: int, classes: Sequence[str], most: int = 10) -> list[tuple[int, list[str]]]:
        """(memory, the names of the classes that it raises most), for those that raise one class the most.

        Args:
            layer: one of `metadata["layers"]`.
            classes: the name of every class, such as `loaded.labels`.
            most: how many memories.

        Raises:
            PrismaError: no such layer, or not a name for each class.
        """
        if layer not in self.metadata["layers"] or len(classes) != self.agreement.shape[1]:
            raise PrismaError(
                f"expected a layer among {self.metadata['layers']} and {self.agreement.shape[1]} names of classes; "
                f"found {layer} and {len(classes)}"
            )
        at = self.metadata["layers"].index(layer)
        order = self.top_logits[at, :, 0].argsort(descending=True)[:most].tolist()
        return [(m, [classes[c] for c in self.top_classes[at, m].tolist()]) for m in order]

    def report(self, classes: Sequence[str] = ()) -> str:
        """The five strongest memories of each layer, with the names of the classes that they raise most."""
        count = self.agreement.shape[1]
        names = classes if len(classes) == count else [f"class {c}" for c in range(count)]
        return "\n".join(
            f"layer {layer}, memory {memory}: {'; '.join(raised)}"
            for layer in self.metadata["layers"]
            for memory, raised in self.listing(layer, names, most=5)
        )

    def accuracy_effect(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """How much more often is there a hit at the class token where the answer is right than where it is wrong?

        Returns:
            [layer], the difference of the two rates of `memory_of_class`; and its bootstrap interval over images
            [2, layer]. NaN where all answers are right, or all are wrong.

        Raises:
            PrismaError: there were no images, or the model has no class token.
        """
        if self.memory_of_class is None or self.correct is None or not self.metadata["class_token"]:
            raise PrismaError("expected memories of images, in a model with a class token; found none")
        hits, right = self.memory_of_class[..., 0].double().cpu(), self.correct.double().cpu()

        def difference(rows: Tensor) -> Tensor:
            means = [some[rows] @ hits[rows] / some[rows].sum() for some in (right, 1 - right)]
            return means[0] - means[1]

        return difference(torch.arange(len(hits))), bootstrap_interval(difference, len(hits), level=level)

    def p_value(self) -> Tensor:
        """[layer]: how likely so much agreement is if trained weights agree as random ones do (Wilcoxon, over classes).

        Raises:
            PrismaError: there is no control.
        """
        if self.control_agreement is None:
            raise PrismaError("expected a result with a control; found none: use memories(control=True)")
        return wilcoxon((self.agreement - self.control_agreement).mT)

    def plot(self, array: str | None = None, *, cause: Effect | None = None) -> "Figure":
        """Rates over patches and images by layer, with chance; without images, the agreement of each class.

        Args:
            cause: as in `ClassIdentifiability.plot`: what ablating the layer's neurons or heads does, say.
        """
        if array is not None or self.memory_of_class is None:
            return super().plot(array or "agreement")
        lines = {}
        for name in ("memory_of_class", "class_of_memory", "composed"):
            for part in (name, f"{name}_by_chance"):
                if (x := getattr(self, part, None)) is not None:
                    lines[part.replace("_", " ")] = self.by_kind(x)["patches"]
        title = f"memories of {self.metadata['site']}: means over patches"
        return draw_stages(lines, title=title, axis="layer", beside=effects_by_layer(cause))


@guarded
@torch.no_grad()
def memories(
    model: ViT,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    site: str = "mlp",
    layers: Iterable[int] | None = None,
    top: int = 5,
    ln: str = "folded",
    control: bool = False,
    seed: int = 0,
    compat: str | None = None,
    batch: int | None = None,
) -> Memories:
    """Which classes do the memories of each layer write, and are the active ones those of the image's class?

    `memory_of_class` and `class_of_memory` are 1 at a token where an active memory belongs to the image's class: means
    far above `_by_chance` say that the layer retrieves the class. `composed` says how often the first class of the
    whole layer is that of one of its active memories; else it is a sum that no memory has alone.

    Args:
        images: [batch, channel, (frame,) height, width]; without images, what the weights alone say.
        labels: [batch], whole numbers.
        site: "mlp" or "attn".
        layers: numbers of the layers, each once; by default all.
        top: how many memories of a token count as active, and how many of a class, or classes of a memory, as its own.
        ln: as in `class_values`: "folded" includes all norms but for their divisors, "none" includes none.
        control: also the agreement of the model with random weights (of `seed`).
        compat: "vilas2023" computes the published numbers, with ln="none": the coefficient of a neuron is what its
            activation function reads, and shares of `composition` overlap, where "none" does not look at the MLP.
        batch: images in one pass; by default as many as have about 256 MiB of activations.

    Returns:
        `agreement` [layer, class]; `top_classes`, `top_logits` [layer, memory, place]; with images `memory_of_class`,
        `class_of_memory` and `composed` [image, layer, token], `composition` [image, layer, token, part], `correct`
        [image].

    Raises:
        PrismaError: as `class_values`; images without labels, or labels that are no class of the model; or no MLP.

    Sources: Geva et al. 2012.14913; Vilas et al. 2310.18969.
    """
    if (images is None) != (labels is None):
        raise PrismaError("expected images with labels, or neither; found only one of them")
    if images is not None and labels is not None:
        labels = expect_labels(model, images, labels)
    reader = MemoryReader(model, labels, site=site, layers=layers, top=top, ln=ln, compat=compat)
    if images is not None:
        read_all(model, images, [reader], batch)
    return reader.result(random_control(model, seed) if control else None)


class MemoryReader(HitReader):
    """What the weights say of the memories, and what images say, from one pass after another."""

    def __init__(
        self,
        model: ViT,
        labels: Tensor | None,
        *,
        site: str = "mlp",
        layers: Iterable[int] | None = None,
        top: int = 5,
        ln: str = "folded",
        compat: str | None = None,
    ) -> None:
        c = model.config
        if site not in tuple(SITES):
            raise PrismaError(f"expected site to be {' or '.join(SITES)}; found {site!r}")
        expect_compat(compat)
        if compat and ln != "none":
            raise PrismaError(f"expected ln='none' with compat={compat!r}; found {ln!r}")
        chosen = chosen_layers(c, layers)
        if top < 1:
            raise PrismaError(f"expected top of 1 or more; found {top}")
        values = [values_of(model, layer, site, ln=ln) for layer in chosen]
        self.of_weights = _of_weights(values, min(top, c.n_classes))
        self.settings: dict[str, Any] = {"site": site, "layers": chosen, "top": top, "ln": ln, "compat": compat}
        self.metadata = {"analysis": "memories", **self.settings, **kinds_metadata(c), "classes": c.n_classes}
        if labels is not None:
            own = {layer: OwnMemories.of(value, top) for layer, (value, _) in zip(chosen, values, strict=True)}
            super().__init__(model, labels, site, own, top, compat)
        else:
            self.found = []

    def result(self, control: ViT | None = None) -> Memories:
        """The result, with the agreement of a model with random weights if there is one."""
        arrays, site, ln = dict(self.of_weights), self.settings["site"], self.settings["ln"]
        if control is not None:
            agreements = [values_of(control, i, site, ln=ln)[1] for i in self.settings["layers"]]
            arrays["control_agreement"] = torch.stack(agreements).float()
        arrays |= self.arrays() if self.found else {}
        return Memories(metadata={**self.metadata, "control": control is not None}, **arrays)


def _of_weights(values: Sequence[tuple[Tensor, Tensor]], most: int) -> dict[str, Tensor]:
    """The arrays of the weights alone. `values` has, by layer, what `values_of` gives."""
    best = [value.topk(most, dim=0) for value, _ in values]
    return {
        "agreement": torch.stack([agreement for _, agreement in values]).float(),
        "top_classes": torch.stack([of_layer.indices.mT for of_layer in best]),
        "top_logits": torch.stack([of_layer.values.mT for of_layer in best]).float(),
    }
