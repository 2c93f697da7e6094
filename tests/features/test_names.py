"""Names of objectives: short where they can be, and another for everything that is another objective."""

import itertools

import torch

from prisma.features import Neuron
from prisma.features.copies import Diversity, Interpolation
from prisma.features.names import name_of, names_of
from prisma.features.objectives import Channel, Direction, Near, OfFunction, OfLogits
from prisma.features.references import Caricature, Content, Distance, Style
from prisma.metrics import Logit, LogitDiff, Similarity

V, W = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5])
PICTURE = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_names_are_short() -> None:
    assert name_of(Channel("blocks.3.mlp.post", 17)) == "blocks.3.mlp.post:17"
    assert name_of(Channel("blocks.3.attn.z", 1, "class", 2)) == "blocks.3.attn.z:1,head=2,token=class"
    assert name_of(Neuron("blocks.3.mlp.post", 17)) == "blocks.3.mlp.post:17,token=0"
    assert name_of(Neuron("blocks.3.mlp.post", 17, None)) == "blocks.3.mlp.post:17,token=mean"
    assert name_of(Channel("logits", 3)) == name_of(OfLogits(Logit(3))) == "logits:3"
    a, b = Channel("a", 1), Channel("b", 2)
    assert name_of(a - 0.5 * b) == "a:1 - 0.5*b:2" and name_of(-a + 1) == "- a:1 + 1"
    assert name_of(2 * a * (a - b) / 4 + 3) == "0.5*a:1*(a:1 - b:2) + 3"
    assert name_of(OfLogits(LogitDiff(1, 2))) == "LogitDiff(correct=1, wrong=2)"
    assert name_of(OfFunction(lambda acts: acts["a"], ("a",), "mine")) == "mine"
    assert name_of(Direction("a", V, power=2.0)).startswith("Direction(a, direction=[2] ")
    assert name_of(Near(a, 2.0)) == "Near(of=a:1, target=2.0)"


def one(acts) -> None:  # type: ignore[no-untyped-def]
    raise NotImplementedError


def two(acts) -> None:  # type: ignore[no-untyped-def]
    raise NotImplementedError


def test_different_objectives_have_different_names_and_equal_ones_the_same() -> None:
    def objectives() -> list:  # type: ignore[type-arg]
        a, b = Channel("a", 1), Channel("a", 1, 3)
        return [
            a, b, Direction("a", V), Direction("a", W), Direction("b", V), Direction("a", V, 1.0),
            Direction("a", V, where="class"), OfFunction(one, ("a",)), OfFunction(two, ("a",)), OfFunction(one, ("b",)),
            OfLogits(LogitDiff(1, 2)), OfLogits(LogitDiff(1, 3)), OfLogits(Similarity(V)), OfLogits(Similarity(W)),
            Near(a, 1.0), Near(b, 1.0), Near(a, 2.0), Caricature("a", PICTURE), Content("a", PICTURE),
            Style("a", PICTURE), Style("a", 1 - PICTURE), Distance(PICTURE), Distance(1 - PICTURE), Diversity("a"),
            Diversity("b"), Interpolation(a, b), Interpolation(b, a), a + b, a - b, a * b, a / 3, a * 0.3333333,
            a + Direction("a", V), a + Direction("a", W),
        ]  # fmt: skip

    names, again = [name_of(x) for x in objectives()], [name_of(x) for x in objectives()]
    assert names == again
    same = [(x, y) for x, y in itertools.combinations(names, 2) if x == y]
    assert not same


def test_what_cannot_be_told_apart_is_numbered() -> None:
    functions = [OfFunction(lambda acts, i=i: acts["a"][:, i], ("a",)) for i in range(2)]
    first, second = names_of(functions)
    assert second == f"{first} (2)" and "lambda" in first
