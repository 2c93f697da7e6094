"""Coders, against slow and obvious computations of one token at a time, in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prisma.errors import PrismaError
from prisma.sparse.coders import BATCHED, KINDS, Coder, CoderConfig, drawn, expect_coder, expect_whole, unit


def random_coder(kind: str, d: int, m: int, k: int, seed: int, **more: object) -> Coder:
    """A coder of which every weight is drawn."""
    coder = Coder(CoderConfig(kind, d, m, k, **more)).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    for name, x in coder.state_dict().items():
        x.copy_(torch.randn(x.shape, generator=generator, dtype=x.dtype))
        if name == "threshold":
            x.abs_()
    if kind in BATCHED:
        coder.threshold.fill_(0.7)
    return coder.requires_grad_(False)


def slow_code(coder: Coder, x: list[float]) -> list[float]:
    """The code of one token, number by number."""
    c = coder.config
    weight, b_dec = coder.W_enc.tolist(), coder.b_dec.tolist()
    inputs = [x[i] - (b_dec[i] if c.centred else 0) for i in range(c.d)]
    products = [sum(inputs[i] * weight[i][j] for i in range(c.d)) for j in range(c.width)]
    p = [product + bias for product, bias in zip(products, coder.bias.tolist(), strict=True)]
    k = c.k or 0
    if c.kind in ("topk", "abstopk"):
        size = (lambda j: abs(p[j])) if c.kind == "abstopk" else (lambda j: p[j])
        kept = sorted(range(c.width), key=size, reverse=True)[:k]
        return [(p[j] if c.kind == "abstopk" else max(p[j], 0)) if j in kept else 0 for j in range(c.width)]
    if c.kind == "groupmax":
        size_of = c.width // k
        return [max(p[j], 0) if p[j] == max(p[j // size_of * size_of :][:size_of]) else 0 for j in range(c.width)]
    if c.kind == "gated":
        mags = [a * r + b for a, r, b in zip(products, coder.r_mag.exp().tolist(), coder.b_mag.tolist(), strict=True)]
        return [max(mag, 0) if gate > 0 else 0 for gate, mag in zip(p, mags, strict=True)]
    over = [0.0] * c.width if c.kind == "standard" else coder.threshold.tolist()
    return [max(p[j], 0) if p[j] > over[j] else 0 for j in range(c.width)]


@given(st.sampled_from(KINDS), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_codes_and_reconstructions_are_those_of_each_token_alone(kind: str, d: int, k: int, n: int, seed: int) -> None:
    coder = random_coder(kind, d, 3 * k, k, seed)
    x = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    slow = torch.tensor([slow_code(coder, row) for row in x.tolist()], dtype=torch.float64)
    z = coder.encode(x)
    assert torch.allclose(z, slow, atol=1e-12)
    y = torch.stack([sum((z[i, j] * coder.W_dec[j] for j in range(3 * k)), coder.b_dec) for i in range(n)])
    assert torch.allclose(coder(x), y, atol=1e-12) and torch.equal(coder.decode(z), coder(x))
    assert coder.W_enc.shape == (d, 3 * k) and coder.W_dec.shape == (3 * k, d)


@given(st.sampled_from(BATCHED), st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
def test_a_batch_keeps_k_per_token_and_not_per_batch(kind: str, n: int, k: int, seed: int) -> None:
    """Overcomplete 0.3 keeps k in the whole batch."""
    coder = random_coder(kind, 4, 12, k, seed)
    x = torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    p = coder.pre(x)
    largest = p.flatten().sort(descending=True).values[: n * k]
    z = coder.encode(x, as_trained=True)
    assert sorted(z[z != 0].tolist()) == sorted(largest[largest > 0].tolist())


def test_a_transcoder_adds_its_skip_and_does_not_centre() -> None:
    coder = random_coder("topk", 3, 8, 2, 0, target="out", d_out=5, skip=True, centred=False)
    x = torch.randn(7, 3, dtype=torch.float64)
    y = coder.encode(x) @ coder.W_dec + coder.b_dec + x @ coder.W_skip.T
    assert torch.allclose(coder(x), y) and coder(x).shape == (7, 5)
    assert torch.equal(coder.pre(x), x @ coder.W_enc + coder.b_enc)


def test_a_crosscoder_is_the_sum_of_its_sites() -> None:
    coder = random_coder("topk", 7, 9, 2, 0, sites=("a", "b"), widths=(3, 4))
    x = torch.randn(5, 7, dtype=torch.float64)
    (x_a, x_b), (c_a, c_b) = coder.by_site(x), coder.by_site(coder.b_dec)
    w_a, w_b = coder.W_enc[:3], coder.W_enc[3:]
    assert torch.allclose(coder.pre(x), (x_a - c_a) @ w_a + (x_b - c_b) @ w_b + coder.b_enc)
    z, (d_a, d_b) = coder.encode(x), coder.by_site(coder.W_dec)
    assert torch.allclose(coder(x), torch.cat([z @ d_a + c_a, z @ d_b + c_b], -1))
    assert coder.site == "a + b"


def test_encoder_and_decoder_begin_equal_in_memory_of_their_own() -> None:
    coder = drawn(CoderConfig("topk", 6, 10, 2), seed=3)
    assert torch.equal(coder.W_enc, coder.W_dec.T) and torch.allclose(coder.W_dec.norm(dim=-1), torch.ones(10))
    assert coder.W_enc.untyped_storage().data_ptr() != coder.W_dec.untyped_storage().data_ptr()
    assert not torch.equal(coder.W_dec, drawn(CoderConfig("topk", 6, 10, 2), seed=4).W_dec)
    assert torch.equal(unit(torch.zeros(2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "relu"}, "expected kind to be one of standard, topk"),
        ({"k": 9}, "expected k to be at most the number of latents, 8; found 9"),
        ({"k": None}, "expected k, the number of active latents per token, for a topk coder; found none"),
        ({"k": 0}, "expected k to be from 1 to 100,000,000; found 0"),
        ({"width": 0}, "expected width to be from 1"),
        ({"kind": "groupmax", "k": 3}, "expected groups of one size"),
        ({"skip": True}, "expected a target site for a coder with a skip"),
        ({"target": "out"}, "not to be centred"),
        ({"sites": ("a", "b"), "widths": (3, 2)}, "expected the widths of 2 sites, which add to 4"),
        ({"sites": ("a", "b"), "widths": (4,)}, r"expected the widths of 2 sites, which add to 4; found \(4,\)"),
        ({"sites": ("a", "b"), "widths": (-1, 5)}, r"expected the widths of 2 sites, .* found \(-1, 5\)"),
        ({"widths": (9,)}, r"expected the widths of 1 sites, which add to 4; found \(9,\)"),
        ({"sites": ()}, r"expected one site or several different ones; found \(\)"),
        ({"sites": ("a", "a"), "widths": (2, 2)}, "expected one site or several different ones; found"),
        ({"target": "", "centred": False}, "expected one site or several different ones; found"),
        ({"sites": ("\x1b[2J",)}, r"expected names of sites; found '\\x1b\[2J'"),
        ({"sites": ("a" * 2000,)}, "expected names of sites; found 'aaa"),
        ({"kind": "matryoshka", "prefixes": (4, 2, 8)}, "expected prefixes that grow to the width 8"),
        ({"prefixes": (4, 8)}, r"of a matryoshka coder alone; found \(4, 8\) of a topk coder"),
    ],
)
def test_what_cannot_be_a_coder_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        CoderConfig(**{"kind": "topk", "d": 4, "width": 8, "k": 2, **settings})  # type: ignore[arg-type]


def test_activations_of_another_width_and_weights_without_numbers_are_refused() -> None:
    coder = drawn(CoderConfig("topk", 4, 8, 2, ("blocks.1.resid_post",)))
    with pytest.raises(PrismaError, match=r"width 4 for this coder of blocks.1.resid_post; found 5: another site"):
        coder.encode(torch.zeros(2, 5))
    with pytest.raises(PrismaError, match="expected a code of 8 latents; found one of 7"):
        coder.decode(torch.zeros(2, 7))
    with pytest.raises(PrismaError, match="expected a sparse coder; found a int"):
        expect_coder(3)
    with pytest.raises(PrismaError, match=r"expected the weights of this coder in training to fit .* memory"):
        drawn(CoderConfig("topk", 10**8, 10**8, 2))
    assert repr(coder) == "Coder(topk, 4 -> 8 latents, k=2, blocks.1.resid_post)"
    coder.W_dec.data[0, 0] = torch.nan
    with pytest.raises(PrismaError, match="expected finite weights of a coder; found NaN or infinities in W_dec"):
        expect_whole(coder)


def test_codes_keep_leading_axes_and_take_half_precision() -> None:
    coder = drawn(CoderConfig("topk", 4, 8, 2))
    x = torch.randn(2, 3, 4)
    assert torch.equal(coder.encode(x)[1], coder.encode(x[1])) and coder.encode(x.half()).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_a_coder_in_half_precision_is_nearly_the_same(kind: str) -> None:
    coder, x = random_coder(kind, 8, 24, 4, 0), torch.randn(50, 8, dtype=torch.float64)
    half = random_coder(kind, 8, 24, 4, 0).bfloat16()
    assert half(x).dtype == torch.bfloat16 and half.decode(coder.encode(x)).dtype == torch.bfloat16
    error = (half.decode(coder.encode(x)).double() - coder(x)).norm() / coder(x).norm()
    assert error < 0.02


def test_decoding_active_latents_alone_is_decoding_all() -> None:
    coder, x = random_coder("topk", 8, 24, 4, 0), torch.randn(3, 5, 8, dtype=torch.float64)
    z = coder.encode(x.flatten(0, 1)).view(3, 5, 24)
    with torch.no_grad():
        few = coder.decode(z)
    assert few.shape == x.shape and torch.allclose(few, coder.decode(z), atol=1e-12)
    z.requires_grad_()
    coder.decode(z).sum().backward()
    assert z.grad is not None and torch.allclose(z.grad, coder.W_dec.sum(1).expand(3, 5, 24))  # of silent ones too
