"""What rules make of a source's tensors: q, k, v, heads, rotation, prefix tokens, two heads as one."""

import torch
from torch import nn

from prisma.attention import rotate
from prisma.pretrained import tensors
from prisma.pretrained.rules import Context
from tests.variants import model_of

CONTEXT = Context(model_of("base").config, 0, {})


def test_interleaved_pairs_turn_as_halves_do() -> None:
    """Rotating reordered rows by the reordered table is the source's rotation, reordered."""
    x, angle = torch.randn(2, 5, 3, 8, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    cos, sin = (f(angle).repeat_interleave(2, -1) for f in (torch.cos, torch.sin))
    pairs = (
        torch.view_as_complex(x.unflatten(-1, (4, 2)).contiguous())
        * torch.polar(torch.ones_like(angle), angle)[:, None]
    )
    theirs = torch.view_as_real(pairs).flatten(-2)
    table = tensors.rotation_table(cos, sin, interleaved=True)
    order = tensors.halves(8)
    assert table.shape == (2, 5, 1, 8)
    assert torch.allclose(rotate(x[..., order], table), theirs[..., order])


def test_a_table_for_each_head() -> None:
    cos, sin = torch.randn(2, 3, 5, 8)
    table = tensors.rotation_table(cos, sin, interleaved=False)
    assert torch.equal(table[0].transpose(0, 1), cos)
    assert torch.equal(table[1].transpose(0, 1), sin)


def test_rows_of_heads() -> None:
    rows = torch.arange(12)
    assert tensors.heads_in_halves(rows, 4).tolist() == [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11]
    assert tensors.repeated_heads(torch.arange(4), 2, 4).tolist() == [0, 1, 0, 1, 2, 3, 2, 3]


def test_facts_of_one_layer_or_all() -> None:
    layers = [torch.zeros(1), torch.ones(1)]
    assert tensors.fact("x")(Context(None, 1, {"x": layers})) is layers[1]
    assert tensors.fact("x")(Context(None, 1, {"x": layers[0]})) is layers[0]


def test_absent_biases_are_zero() -> None:
    q, v = torch.ones(2), 2 * torch.ones(2)
    assert tensors.joined(CONTEXT, q, v).tolist() == [1, 1, 2, 2]
    assert tensors.joined_with_zeros((1, 0, 1))(CONTEXT, q, v).tolist() == [1, 1, 0, 0, 2, 2]


def test_one_of_several_parts() -> None:
    assert tensors.chunk(1, 3)(CONTEXT, torch.arange(6)).tolist() == [2, 3]


def test_the_position_of_the_class_token_is_part_of_it() -> None:
    token, positions = torch.ones(4), torch.arange(12.0).view(3, 4)
    assert tensors.class_token_with_position(CONTEXT, token, positions).tolist() == [[1, 2, 3, 4]]
    batched = tensors.class_token_with_position(CONTEXT, token[None, None], positions[None])
    assert batched.tolist() == [[1, 2, 3, 4]]
    assert CONTEXT.config.n_prefix == 1
    assert torch.equal(tensors.patch_positions(CONTEXT, positions), positions[1:])
    assert torch.equal(tensors.patch_positions(CONTEXT, positions[None]), positions[1:])
    assert tensors.no_prefix(CONTEXT, torch.ones(4, 3, 2, 2)).shape == (0, 4)


def test_two_heads_are_one_that_reads_both_tokens() -> None:
    first, second = nn.Linear(4, 3), nn.Linear(4, 3)
    one, other = torch.randn(2, 5, 4)
    weight = tensors.averaged_heads(CONTEXT, first.weight, second.weight)
    bias = tensors.averaged_heads(CONTEXT, first.bias, second.bias)
    torch.testing.assert_close(
        nn.functional.linear(torch.cat([one, other], 1), weight, bias), (first(one) + second(other)) / 2
    )


def test_simple_ones() -> None:
    x = torch.arange(6.0).view(2, 3)
    assert torch.equal(tensors.transposed(CONTEXT, x), x.T)
    assert torch.equal(tensors.first_row(CONTEXT, x), x[0])
    assert torch.equal(tensors.flat(CONTEXT, x.view(2, 3, 1)), x)
    assert tensors.ones(CONTEXT, x).tolist() == [[1] * 3] * 2
    assert tensors.zeros(CONTEXT, x).tolist() == [[0] * 3] * 2
