"""Fourier components: planted waves in a model of exact cosines and sines, and sums written out."""

import math

import pytest
import torch
from torch import Tensor, nn

import prisma
from prisma import PrismaError, ViT, ViTConfig
from prisma.analysis.directions.fourier_components import contributions, parts_at, power_of
from prisma.data import task
from tests.variants import images_of, model_of

P = 12
PLANTED = {2: 3.0, 5: 4.0, 6: 1.0}
"""Frequency -> its part of the logit of the right class; 6 = p / 2 has a cosine alone."""
PAIRS = torch.tensor([(a, b) for a in range(P) for b in range(a + 1, P)])


class Adds(nn.Module):
    """Logits sum over k of alpha_k cos(2 pi k (a + b - c) / p) of tokens e^(2 pi i k a / p) and e^(2 pi i k b / p)."""

    def forward(self, x_BTM: Tensor, tap: object = None) -> Tensor:
        n = len(PLANTED)
        tokens = torch.complex(x_BTM[..., :n], x_BTM[..., n : 2 * n])  # 0 where a token shows no number
        product = (tokens.sum(1).square() - tokens.square().sum(1)) / 2  # e^(2 pi i k (a + b) / p)
        k, alpha = torch.tensor(list(PLANTED)).double(), torch.tensor(list(PLANTED.values())).to(torch.complex128)
        turns = torch.polar(torch.ones(n, P).double(), -2 * math.pi / P * k[:, None] * torch.arange(P))
        return (product * alpha @ turns).real


def adding() -> tuple[ViT, Tensor]:
    """A model that adds by the planted waves, without blocks, and images of all pairs; each number is one patch."""
    config = ViTConfig(
        image_size=(1, P), patch_size=1, channels=P, n_layers=1, d_model=8, n_heads=1, d_mlp=0, n_classes=P,
        norm="none", class_token=False, pool="mean", norm_final=False,
    )  # fmt: skip
    model = ViT(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        a = torch.arange(P, dtype=torch.float64)
        for i, k in enumerate(PLANTED):
            model.embed.patch.weight[i] = torch.cos(2 * math.pi * k * a / P)
            model.embed.patch.weight[i + len(PLANTED)] = torch.sin(2 * math.pi * k * a / P)
    model.readout = Adds()  # type: ignore[assignment]
    images = torch.zeros(len(PAIRS), P, 1, P, dtype=torch.float64)
    for row, pair in enumerate(PAIRS.tolist()):
        for number in pair:
            images[row, number, 0, number] = 1
    return model.requires_grad_(False), images


def wave_part(y: Tensor, k: int) -> Tensor:
    """The part of y [number, ...] at a frequency, by sums over the numbers."""
    found = torch.zeros_like(y)
    for s in range(len(y)):
        for t in range(len(y)):
            both = 1 if 2 * k == len(y) else 2
            found[s] += both / len(y) * math.cos(2 * math.pi * k * (s - t) / len(y)) * y[t]
    return found


@pytest.mark.parametrize("n", [7, 8])
def test_parts_and_powers_are_those_of_sums_written_out(n: int) -> None:
    y = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [wave_part(y, k) for k in range(1, n // 2 + 1)]
    torch.testing.assert_close(sum(parts) + y.mean(0), y)
    torch.testing.assert_close(power_of(y), torch.stack([x.square().sum(1).mean() for x in parts]))
    torch.testing.assert_close(parts_at(y, [3, 1]), parts[2] + parts[0])
    logits = torch.randn(4, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sums = torch.tensor([0, 3, n - 1, 2])
    found = contributions(logits, sums)
    for image, s in enumerate(sums.tolist()):
        for k in range(1, n // 2 + 1):
            assert found[image, k - 1].item() == pytest.approx(wave_part(logits[image][:, None], k)[s].item())
    right = logits.gather(1, sums[:, None])[:, 0]
    torch.testing.assert_close(found.sum(1), right - logits.mean(1))


def test_planted_frequencies_are_found_and_no_others() -> None:
    model, images = adding()
    found = prisma.fourier_components(model, images, PAIRS)
    assert sorted(found.frequencies) == [2, 5], "these have more than 90 % of the power; all three have all"
    planted = torch.zeros(P // 2, dtype=torch.float64)
    for k, alpha in PLANTED.items():
        planted[k - 1] = alpha
    torch.testing.assert_close(found.contribution, planted.expand(len(PAIRS), -1), atol=1e-9, rtol=0)
    power = planted.square() * torch.tensor([0.5] * 5 + [1])
    torch.testing.assert_close(found.logits, power / power.sum(), atol=1e-9, rtol=0)
    assert found.embedding.tolist() == pytest.approx([0, 1 / 3, 0, 0, 1 / 3, 1 / 3])


def test_all_frequencies_keep_the_loss_and_without_them_the_answer_is_by_chance() -> None:
    model, images = adding()
    found = prisma.fourier_components(model, images, PAIRS, frequencies=list(PLANTED))
    torch.testing.assert_close(found.restricted_loss, found.loss)
    torch.testing.assert_close(found.excluded_loss, torch.full_like(found.loss, math.log(P)))
    assert found.loss.max() < 0.1
    one = prisma.fourier_components(model, images, PAIRS, frequencies=[3])
    torch.testing.assert_close(one.restricted_loss, torch.full_like(one.loss, math.log(P)))
    torch.testing.assert_close(one.excluded_loss, one.loss)
    assert one.metadata["chosen"] == "given" and found.report().startswith("key frequencies: 2, 5, 6 (1.00 of the logi")


def test_a_model_that_knows_pairs_by_heart_needs_no_frequency() -> None:
    model, images = adding()
    sums = PAIRS.sum(1) % P
    by_heart = torch.randn(len(PAIRS), P, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_heart[torch.arange(len(PAIRS)), sums] += 9
    model.readout = _Table(by_heart)
    found = prisma.fourier_components(model, images, PAIRS, frequencies=[2, 5], batch=len(PAIRS))
    assert found.loss.mean() < found.excluded_loss.mean() < 0.2 < 0.6 < found.restricted_loss.mean()


class _Table(nn.Module):
    def __init__(self, answers: Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, x_BTM: Tensor, tap: object = None) -> Tensor:
        return self.answers[: len(x_BTM)]


def test_the_losses_are_those_of_edited_logits_written_out() -> None:
    model = model_of("base")
    n = model.config.n_classes
    numbers = torch.cartesian_prod(torch.arange(n), torch.arange(n))[1:]
    images = images_of(model, len(numbers))
    found = prisma.fourier_components(model, images, numbers, frequencies=[2])
    logits, acts = prisma.record(model, images, ["embed"])
    sums = numbers.sum(1) % n
    means = torch.stack([logits[sums == s].mean(0) for s in range(n)])
    part = wave_part(means, 2)
    for i in range(len(images)):
        s = int(sums[i])
        for name, x in {"restricted_loss": means.mean(0) + part[s], "excluded_loss": logits[i] - part[s]}.items():
            assert getattr(found, name)[i].item() == pytest.approx((x.logsumexp(0) - x[s]).item())
    variance = sum((logits[sums == s] - means.mean(0)).square().sum(1).mean() for s in range(n))
    assert found.logits[1].item() == pytest.approx((part.square().sum() / variance).item())
    design = sum(torch.eye(n, dtype=torch.float64)[column] for column in numbers.unbind(1))
    u = torch.linalg.lstsq(design, acts["embed"].sum(1)).solution
    parts = [wave_part(u, k).square().sum() for k in range(1, n // 2 + 1)]
    assert found.embedding.tolist() == pytest.approx((torch.stack(parts) / sum(parts)).tolist())
    few = prisma.fourier_components(model, images, numbers, frequencies=[2], batch=5)
    torch.testing.assert_close(few.restricted_loss, found.restricted_loss)


def test_the_shipped_circle_mouse_adds_by_a_few_waves() -> None:
    data = task("circle")
    images = torch.cat([data.inputs(split)[0] for split in ("train", "test")])
    numbers = torch.stack(
        [torch.cat([data.splits[split].factors[name] for split in ("train", "test")]) for name in ("first", "second")],
        1,
    )
    found = prisma.fourier_components(prisma.load("mice/circle").model, images, numbers)
    keys = [k - 1 for k in found.frequencies]
    assert 5 <= len(keys) <= 12 and found.logits[keys].sum() > 0.8
    assert found.restricted_loss.mean() < 0.05 and found.excluded_loss.mean() > 2


def test_what_is_the_same_for_all_images_has_no_shares() -> None:
    model, images = adding()
    model.readout = _Table(torch.zeros(len(PAIRS), P, dtype=torch.float64))
    found = prisma.fourier_components(model, images, PAIRS, frequencies=[1])
    assert found.logits.isnan().all() and not found.embedding.isnan().any()
    assert found.loss.tolist() == pytest.approx([math.log(P)] * len(PAIRS))
    found.plot()
    for logits in (torch.zeros(len(PAIRS), P), torch.randn(1, P, generator=torch.Generator().manual_seed(0)) / 3):
        noise = 1e-9 * torch.randn(len(PAIRS), P, generator=torch.Generator().manual_seed(1))  # rounding, of float32
        model.readout = _Table((logits + noise * logits.abs().max()).double())
        with pytest.raises(PrismaError, match="expected logits that depend on the sum, to find key frequencies in; fo"):
            prisma.fourier_components(model, images, PAIRS)


def test_what_is_no_addition_is_refused() -> None:
    model, images = adding()
    some = PAIRS[PAIRS.sum(1) % P != 7]
    for numbers, message in {
        PAIRS[:, :1]: r"expected two whole numbers \(int64\) for each of 66 images; found torch.int64 \[66, 1\]",
        PAIRS.double(): "found torch.float64",
        PAIRS + 1: "expected numbers from 0 to 11, below the number of classes; found 1 to 12",
    }.items():
        with pytest.raises(PrismaError, match=message):
            prisma.fourier_components(model, images, numbers)
    with pytest.raises(PrismaError, match="expected an image of each sum modulo 12; found none of 7"):
        prisma.fourier_components(model, images[: len(some)], some)
    half = (0, 2, 3, 7, 8, 11)  # what the numbers of one half gain, those of the other may lose
    across = torch.tensor([(a, b) for a in half for b in range(P) if b not in half])
    with pytest.raises(
        PrismaError, match="expected each number from 0 to 11 in several pairs, so that their embeddings"
    ):
        prisma.fourier_components(model, images[: len(across)], across)
    with pytest.raises(PrismaError, match="expected different frequencies from 1 to 6; found"):
        prisma.fourier_components(model, images, PAIRS, frequencies=[7])
    for wrong in ([], [2, 2], [0]):
        with pytest.raises(PrismaError, match="expected different frequencies from 1 to 6; found"):
            prisma.fourier_components(model, images, PAIRS, frequencies=wrong)
