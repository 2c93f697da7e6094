"""Batch norms within convolutions: the same numbers from fewer parts, or the network as it is."""

import threading
from collections.abc import Callable

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from prisma.features.folding import folded
from prisma.features.subjects import OfModule, subject_of
from tests.features.test_subjects import TRANSFORM


class Net(nn.Module):
    """Two convolutions with batch norms, one of which has its activation within, as timm's have."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = BatchNormAct2d(4, act_layer=nn.GELU)
        self.second = nn.Conv2d(4, 5, 3, groups=1)
        self.last = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.norm(self.first(x)))).mean((2, 3))


class Forked(Net):
    """Its last batch norm is not all that reads the convolution before it."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.norm(self.first(x)))
        return (self.last(x) + x).mean((2, 3))


class ByName(Net):
    """What its parts take has a name."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(input=self.second(input=self.norm(self.first(input=x)))).mean((2, 3))


class Looking(Net):
    """Its own code looks into a batch norm, after the last one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.last.weight


def drawn(kind: type[Net]) -> Net:
    torch.manual_seed(0)
    network = kind().double().eval()
    for part in (network.norm, network.last):
        for x in (part.weight, part.bias, part.running_mean, part.running_var):
            nn.init.uniform_(x, 0.2, 2.0)
    return network


def run(network: nn.Module) -> dict[str, Tensor]:
    x = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        return {"logits": network(x)}


def norms(network: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())


def test_batch_norms_become_part_of_the_convolutions_before_them() -> None:
    network = drawn(Net)
    found = folded(network, run, [])
    assert (norms(network), norms(found)) == (2, 0)
    assert torch.allclose(run(found)["logits"], run(network)["logits"], rtol=1e-12, atol=0)
    assert isinstance(found.get_submodule("norm.act"), nn.GELU), "what is within a norm keeps its name"


def test_weights_that_stay_are_not_copied_and_a_kept_convolution_stays() -> None:
    network = drawn(Net)
    found = folded(network, run, ["second"])
    assert norms(found) == 1 and found.get_submodule("last") is not network.last
    assert found.get_parameter("second.weight") is network.second.weight
    assert found.get_parameter("first.weight") is not network.first.weight and network.first.bias is None


def test_a_network_stays_itself_where_another_part_reads_the_convolution() -> None:
    network = drawn(Forked)
    assert folded(network, run, []) is network and norms(network) == 2
    found = folded(network, run, ["second"])
    assert norms(found) == 1, "the other batch norm"
    assert torch.allclose(run(found)["logits"], run(network)["logits"], rtol=1e-12, atol=0)


def uncopied(network: Net) -> None:
    network.lock = threading.Lock()  # type: ignore[assignment]


def of_the_batch(network: Net) -> None:
    for norm in (network.norm, network.last):
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None


class Uncopied:
    def __deepcopy__(self, memo: object) -> "Uncopied":
        raise ValueError("no copies")


def holding(network: Net) -> None:
    network.held = Uncopied()  # type: ignore[assignment]


def pruned(network: Net) -> None:
    prune.random_unstructured(network.first, "weight", 0.5)
    prune.random_unstructured(network.last, "bias", 0.5)


def parametrized(network: Net) -> None:
    parametrize.register_parametrization(network.norm, "weight", nn.Tanh())
    parametrize.register_parametrization(network.second, "bias", nn.Tanh())


def off(network: Net) -> None:
    network.last.register_forward_hook(lambda part, inputs, output: output * 0)


@pytest.mark.parametrize("change", [uncopied, of_the_batch, holding, pruned, parametrized, off])
def test_a_network_stays_itself_where_nothing_can_be_folded(change: Callable[[Net], None]) -> None:
    network = drawn(Net)
    change(network)
    assert folded(network, run, []) is network


def test_parts_may_be_called_by_names() -> None:
    network = drawn(ByName)
    assert norms(folded(network, run, [])) == 0


def test_a_network_stays_itself_where_only_zeros_can_be_compared() -> None:
    """Both batch norms are off for these images, so that nothing tells that the second convolution is read twice."""
    network = drawn(Forked)

    def off(network: nn.Module) -> dict[str, Tensor]:
        return {"logits": run(network)["logits"].clamp(max=-1e9) + 1e9}

    assert folded(network, off, []) is network


def test_a_network_that_looks_into_its_batch_norms_is_run_only_as_far_as_it_can_be() -> None:
    subject = subject_of(drawn(Looking).float(), TRANSFORM)
    pixels = torch.rand(3, 3, 6, 8)
    quick = subject.quick(["second"])
    assert isinstance(quick, OfModule) and norms(quick.model) == 1
    assert torch.allclose(quick.read(pixels, ["second"])["second"], subject.read(pixels, ["second"])["second"])
    assert subject.quick(["logits"]) is subject


def test_a_subject_reads_the_same_from_its_quick_form_with_gradients() -> None:
    subject = subject_of(drawn(Net).float(), TRANSFORM)
    quick = subject.quick(["last", "second"])
    assert isinstance(quick, OfModule) and norms(quick.model) == 1, "the second convolution is read"
    pixels = torch.rand(3, 3, 6, 8)
    for site in ("last", "second"):
        gradients = []
        for one in (subject, quick):
            x = pixels.clone().requires_grad_()
            gradients.append(torch.autograd.grad(one.read(x, [site])[site].square().sum(), x)[0])
        assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5)
    half = subject_of(drawn(Net).bfloat16(), TRANSFORM)
    assert half.quick(["last"]) is half, "rounding in low precision is not small"
