"""Steps of training: unit directions, thresholds, dead latents; and planted dictionaries are found."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch

from prisma.errors import PrismaError
from prisma.sparse.coders import KINDS, CoderConfig, unit
from prisma.sparse.learner import SIZING, Learner, Plan, _Revived, default_lr, rate
from prisma.sparse.losses import Loss
from prisma.sparse.metrics import dictionary_recovery
from prisma.sparse.scaling import Scaling

CPU = torch.device("cpu")
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::bincount"}
WAITING |= {"aten::unique_dim", "aten::_unique2", "aten::item", "aten::equal", "aten::repeat_interleave"}
"""Operators for whose result, or its shape, the host waits."""


def planted(n: int, d: int, m: int, k: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens [n, d], directions [m, d]): every token is the sum of k of m directions, and a large mean."""
    generator = torch.Generator().manual_seed(0)
    directions = unit(torch.randn(m, d, generator=generator))
    generator.manual_seed(seed)
    chosen = torch.rand(n, m, generator=generator).topk(k, 1).indices
    return torch.zeros(n, m).scatter(
        1, chosen, torch.rand(n, k, generator=generator) + 0.5
    ) @ directions + 3, directions


def learner(kind: str, steps: int, m: int = 24, k: int = 2, d: int = 16, lr: float = 4e-3, **more: object) -> Learner:
    prefixes = (m // 2, m) if kind == "matryoshka" else ()
    plan = Plan(CoderConfig(kind, d, m, k, prefixes=prefixes), 1, lr, None, 5000)
    return Learner(Plan(**{**vars(plan), **more}), steps, CPU)


@pytest.mark.parametrize(
    ("kind", "least"),
    [("topk", 0.9), ("batchtopk", 0.8), ("matryoshka", 0.7), ("jumprelu", 0.7), ("gated", 0.6), ("standard", 0.6)],
)
def test_planted_directions_are_found(kind: str, least: float) -> None:
    x, directions = planted(256 * 250, 16, 24, 2, seed=1)
    scaling = Scaling.of(x, "a")
    one = learner(kind, 250, lr=8e-3)
    for some in scaling(x).split(256):
        one.step(some, some)
    found = one.finished(scaling, scaling)
    chance = dictionary_recovery(learner(kind, 1).coder.W_dec, directions).mcc
    assert dictionary_recovery(found.W_dec, directions).mcc > max(least, chance + 0.1)
    assert torch.allclose(found.W_dec.norm(dim=1), torch.ones(24), atol=1e-5)


@pytest.mark.parametrize("kind", ["topk", "abstopk", "groupmax", "batchtopk", "matryoshka"])
def test_the_first_reconstruction_is_not_too_large(kind: str) -> None:
    """Unit directions and their transpose write several times too much: the FVU began at 1.8, and 50 steps went by."""
    x, _ = planted(512, 16, 96, 4, seed=1)
    some = Scaling.of(x, "a")(x)
    as_drawn, one = (learner(kind, 1000, m=96, k=4, lr=1e-12) for _ in range(2))
    first = one.step(some, some).error.item()
    z = as_drawn.coder.encode(some, as_trained=True)
    guess = z @ as_drawn.coder.W_dec
    factors = torch.linspace(0.01, 2, 400)
    errors = torch.stack([(some - factor * guess).square().sum() for factor in factors]) / some.square().sum()
    best = factors[errors.argmin()].item()  # the slow twin of the best scale
    assert one.coder.W_enc.detach().allclose(as_drawn.coder.W_enc.detach() * best**SIZING, rtol=0.02)
    assert best < 0.8 and first < 0.8 * errors[factors.sub(1).abs().argmin()].item()


def test_of_fewer_points_than_latents_all_are_directions_and_the_others_stay_random() -> None:
    one, drawn = learner("topk", 5), learner("topk", 5)
    x = torch.randn(7, 16)
    one.begin_at(x)
    assert (unit(x) @ one.coder.W_dec.T).amax(1).allclose(torch.ones(7))
    assert torch.equal(one.coder.W_dec[7:], drawn.coder.W_dec[7:]) and torch.equal(one.coder.W_enc, one.coder.W_dec.T)


def test_a_step_after_the_first_and_other_kinds_keep_the_size_of_the_encoder() -> None:
    x = torch.randn(64, 16)
    for one in (learner("jumprelu", 1000, lr=1e-12), learner("topk", 1000, lr=1e-12)):
        one.taken = int(one.plan.config.kind == "topk")
        before = one.coder.W_enc.detach().clone()
        one.step(x, x)
        assert one.coder.W_enc.detach().allclose(before, atol=1e-9)


def test_penalised_kinds_are_steered_to_k_and_a_jumprelu_threshold_moves() -> None:
    """As exp(log theta) under Adam, thresholds of SAELens hardly moved (#494)."""
    x, _ = planted(256 * 400, 16, 24, 3, seed=1)
    scaling = Scaling.of(x, "a")
    one = learner("jumprelu", 400, k=3)
    before = one.coder.threshold.clone()
    for some in scaling(x).split(256):
        found = one.step(some, some)
    assert 2 < found.l0.item() < 4
    assert (one.coder.threshold - before).abs().mean() > 0.05 and one.coder.threshold.dtype == torch.float32


def test_bfloat16_is_for_products_and_not_for_what_is_trained() -> None:
    """JumpReLU thresholds of SAELens in bfloat16 cost a tenth of the explained variance (#728)."""
    one = learner("jumprelu", 2)
    one.compute = torch.bfloat16
    x = torch.randn(64, 16)
    one.step(x, x)
    assert {p.dtype for p in one.coder.parameters()} == {torch.float32}
    assert all(v.dtype == torch.float32 for state in one.optimizer.state.values() for v in state.values())


def test_a_batchtopk_coder_has_k_active_latents_at_inference_too() -> None:
    """A threshold from the minima of batches lets more latents through (dictionary_learning #29)."""
    x, _ = planted(256 * 60, 16, 24, 3, seed=1)
    scaling = Scaling.of(x, "a")
    one = learner("batchtopk", 60, k=3)
    for some in scaling(x).split(256):
        one.step(some, some)
    one.calibrate(scaling(x))
    z = one.finished(scaling, scaling).encode(x)
    assert (z != 0).sum().item() / len(x) == pytest.approx(3, rel=1e-3)


def test_the_same_steps_from_a_state_give_the_same_bits() -> None:
    x, _ = planted(64 * 10, 16, 24, 2, seed=1)
    one, two = learner("batchtopk", 10), learner("batchtopk", 10)
    batches = [b - 3 for b in x.split(64)]
    for b in batches[:6]:
        one.step(b, b)
    two.restore({name: value.clone() for name, value in one.state().items()}, 6)
    for b in batches[6:]:
        one.step(b, b)
        two.step(b, b)
    assert all(torch.equal(value, two.state()[name]) for name, value in one.state().items())


class Still:
    """An optimizer that does nothing: torch's own are for the devices that it names."""

    def step(self) -> None: ...
    def zero_grad(self) -> None: ...


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_away_from_the_cpu_depends_on_no_number(kind: str) -> None:
    """Its tensors have none here, so whatever asked for one, as a selection of unknown length does, would fail."""
    one, meta = learner(kind, 10), torch.device("meta")
    one.coder.to(meta)
    one.optimizer, one.quiet, one.sparsity = Still(), one.quiet.to(meta), one.sparsity.to(meta)  # type: ignore[assignment]
    x = torch.randn(64, 16, device=meta)
    for dead in (0, 8):
        revived = _Revived(torch.zeros(dead, dtype=torch.long, device=meta), torch.zeros((), device=meta))
        assert one._take(x, x, revived).total.device == meta
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        one.step(x, x)  # which looks for dead latents


@pytest.mark.parametrize("kind", KINDS)
def test_repeated_steps_are_plain_ones(kind: str) -> None:
    """A graph takes its step again on the tensors that it was given first; here, the step itself stands for it."""
    x, _ = planted(64 * 24, 16, 24, 2, seed=1)
    batches = [b - 3 for b in x.split(64)]
    plain, repeated, resumed = (learner(kind, 24, dead_after=200) for _ in range(3))
    captures, memory = [], dict[str, torch.Tensor]()

    def capture(
        step: Callable[[], Loss], optimizer: torch.optim.Optimizer, changed: Sequence[torch.Tensor], pool: object
    ) -> Callable[[], Loss]:
        captures.append(len(changed))

        def replay() -> Loss:
            own = [x for state in optimizer.state.values() for x in state.values()]
            assert all(any(x is y for y in changed) for x in own), "a graph would change what is no longer used"
            for name, value in vars(step()).items():
                memory.setdefault(name, value.clone()).copy_(value)  # every graph writes what it finds to this memory
            return Loss(**memory)

        return replay

    repeated.capture = resumed.capture = capture
    for one in (plain, repeated, resumed):
        one.fixed = True
        one.quiet[3:5] = 200 - 64 * 6  # so that in the middle latents are dead, and AuxK has its turn
        one.coder.bias.data[3:5] = -5.0
    for b in batches[:2]:
        resumed.step(b, b)
    found = list[list[Loss]]()
    for i, b in enumerate(batches):
        found.append([one.step(b, b if i < 3 else b.clone()) for one in (plain, repeated)])
        if i == 3:
            resumed.restore({name: value.clone() for name, value in repeated.state().items()}, 4)
    for b in batches[4:]:
        resumed.step(b, b)
    for one in (repeated, resumed):
        assert all(torch.equal(value, one.state()[name]) for name, value in plain.state().items())
    for wanted, kept in found:  # also after the steps that came then
        assert all(torch.equal(value, getattr(kept, name)) for name, value in vars(wanted).items())
    assert len(plain.revived) > 0
    assert len(repeated._graphs) + len(resumed._graphs) == 5  # by rooms, and by whether targets are the tokens
    assert len(captures) == 6  # one was of before the restored state


def test_room_for_dead_latents_changes_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.sparse.learner.SMALLEST_ROOM", 4)
    x, _ = planted(64 * 20, 16, 24, 2, seed=1)
    exact, roomy = (learner("batchtopk", 20, dead_after=100) for _ in range(2))
    roomy.fixed = True
    for one in (exact, roomy):
        one.coder.W_enc.data[:, 3:8] = 0
        for b in x.split(64):
            one.step(b - 3, b - 3)
    assert {4, 8} & set(roomy._rooms) and torch.equal(exact.revived, roomy.revived)
    for name, value in exact.state().items():
        torch.testing.assert_close(roomy.state()[name], value, rtol=1e-4, atol=1e-6)


def test_latents_count_as_dead_after_so_many_tokens_and_a_dead_coder_is_an_error() -> None:
    one = learner("topk", 3, dead_after=128)
    one.coder.b_enc.data[5:] = -1e6
    x = torch.randn(64, 16)
    one.step(x, x)
    assert not one.dead.any()
    one.step(x, x)
    assert one.dead[5:].all() and not one.dead[:5].all()
    one.coder.b_enc.data[:] = -1e6
    one.quiet[:] = 128
    with pytest.raises(
        PrismaError, match=r"found a dead coder: none of 24 was active since step 0 \(192 tokens\): try a smaller"
    ):
        one.step(x, x)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    one = learner("topk", 1)
    one.coder.W_dec.data.fill_(1e30)
    with pytest.raises(PrismaError, match=r"expected a finite loss; found .* at step 1: try a smaller lr"):
        one.step(torch.randn(8, 16) * 1e30, torch.randn(8, 16))


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_batch_of_zeros_leaves_a_coder_that_learns(kind: str) -> None:
    x, _ = planted(64 * 60, 16, 24, 2, seed=1)
    one, scaled = learner(kind, 61, lr=8e-3, sparsity=0.0), Scaling.of(x, "a")(x)
    assert one.step(torch.zeros(64, 16), torch.zeros(64, 16)).error == 0
    errors = [one.step(some, some).error.item() for some in scaled.split(64)]
    assert all(w.isfinite().all() for w in one.coder.parameters())
    assert errors[-1] < 0.6 * errors[0]


def test_the_decoders_gradient_does_not_change_the_length_of_directions() -> None:
    x, _ = planted(64, 16, 24, 2, seed=1)
    one, scaled = learner("topk", 5), Scaling.of(x, "a")(x)
    before = one.coder.W_dec.detach().clone()
    one.step(scaled, scaled)
    gradient = one.coder.W_dec.grad
    assert gradient is not None and gradient.norm() > 1e-3 and ((gradient * before).sum(1).abs() < 1e-6).all()
    assert torch.allclose(one.coder.W_dec.norm(dim=1), torch.ones(24), atol=1e-6)


def test_a_frozen_decoder_stays() -> None:
    one = learner("topk", 2, frozen="decoder")
    before, x = one.coder.W_dec.clone(), torch.randn(64, 16)
    one.step(x, x)
    assert torch.equal(one.coder.W_dec, before) and one.coder.W_enc.grad is not None


def test_centring_keeps_latents_alive_where_the_mean_is_large() -> None:
    """Where gamma is large and nothing takes the mean away, most latents die from it (2605.31518)."""
    x, _ = planted(128 * 40, 16, 64, 4, seed=1)
    x = x + 20
    scaling = Scaling.of(x, "a")
    assert scaling.gamma > 20
    dead = []
    for tokens in (scaling(x), x * scaling.scale):
        one = learner("topk", 40, m=64, k=4, dead_after=128 * 20)
        for some in tokens.split(128):
            one.step(some, some)
        dead.append(one.dead.double().mean().item())
    assert dead[0] < 0.05 and dead[1] > 0.5


def test_the_rate_rises_stays_and_falls() -> None:
    assert [rate(s, 100) for s in (0, 4, 50, 90, 99)] == pytest.approx([0.2, 1, 1, 0.5, 0.05])
    assert default_lr(4096) == pytest.approx(1e-3) and default_lr(2**14) == pytest.approx(1e-3 / math.sqrt(4))
