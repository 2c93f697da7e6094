"""Rules are applied strictly: the first that fits wins, and whatever is missing, left over or misshapen is listed."""

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from prisma import PrismaError
from prisma.errors import UnsupportedModelError
from prisma.pretrained.rules import Context, Conversion, Rule, both, convert, inside, rules
from prisma.pretrained.tensors import flat, joined
from tests.variants import ids_of, images_of, model_of, tower_of

TABLE = rules(
    ("embed.patch.weight", "conv.weight", flat),
    ("embed.patch.bias", "conv.bias"),
    ("embed.prefix", "cls pos", lambda _, cls, pos: cls + pos[:1]),
    ("embed.positions", "pos", lambda _, pos: pos[1:]),
    ("blocks.{l}.attn.qkv.weight", "layer.{l}.q.w layer.{l}.k.w layer.{l}.v.w", joined),
    ("blocks.{l}.attn.qkv.bias", "layer.{l}.q.b layer.{l}.k.b layer.{l}.v.b", joined),
    *(
        (f"blocks.{{l}}.{part}.{kind}", f"layer.{{l}}.{part}.{kind}")
        for part in ("attn.out", "mlp.pre", "mlp.out", "ln1", "ln2")
        for kind in ("weight", "bias")
    ),
    *((f"readout.{part}.{kind}", f"{part}.{kind}") for part in ("ln_final", "head") for kind in ("weight", "bias")),
)
MODEL = model_of("base")
SOURCE = Conversion(MODEL.config, TABLE)


def theirs() -> dict[str, Tensor]:
    """The tensors of MODEL as this imagined library has them."""
    c, ours = MODEL.config, MODEL.state_dict()
    found = {name.replace("blocks", "layer").removeprefix("readout."): x for name, x in ours.items()}
    found["conv.weight"] = found.pop("embed.patch.weight").view(c.d_model, c.channels, *c.patch_sides)
    found["conv.bias"] = found.pop("embed.patch.bias")
    found["cls"] = found.pop("embed.prefix") - 1
    found["pos"] = torch.cat([torch.ones(1, c.d_model, dtype=torch.float64), found.pop("embed.positions")])
    for layer in range(c.n_layers):
        for kind in ("weight", "bias"):
            parts = found.pop(f"layer.{layer}.attn.qkv.{kind}").chunk(3)
            found |= {f"layer.{layer}.{which}.{kind[0]}": x for which, x in zip("qkv", parts, strict=True)}
    return found


def sentence(tensors: dict[str, Tensor], source: Conversion = SOURCE) -> str:
    with pytest.raises(PrismaError) as error:
        convert(source, tensors, "the toy")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_converted_model_is_the_model_ready_for_use() -> None:
    found = convert(SOURCE, theirs(), "the toy")
    images = images_of(MODEL)
    with torch.no_grad():
        torch.testing.assert_close(found(images), MODEL(images), rtol=1e-12, atol=1e-12)
    assert not found.training
    assert not any(x.requires_grad for x in found.parameters())


def test_memory_is_shared_where_a_tensor_is_taken_as_it_is() -> None:
    tensors = theirs()
    found = convert(SOURCE, tensors, "the toy").state_dict()
    assert found["readout.head.weight"].data_ptr() == tensors["head.weight"].data_ptr()
    assert found["embed.patch.weight"].data_ptr() == tensors["conv.weight"].data_ptr()


def test_a_text_tower_is_converted_too() -> None:
    tower = tower_of("base")
    names = {re.sub(r"^blocks\.\d+", "blocks.{l}", name) for name in tower.state_dict()}
    table = tuple(Rule(name, (name,)) for name in names)
    found = convert(Conversion(tower.config, table), tower.state_dict(), "the toy")
    assert torch.equal(found(ids_of(tower)), tower(ids_of(tower)))


def test_the_weights_keep_their_precision() -> None:
    halves = {name: x.bfloat16() for name, x in theirs().items() if name != "head.bias"}
    assert {x.dtype for x in convert(SOURCE, halves, "the toy").parameters()} == {torch.bfloat16}


def test_biases_that_the_source_lacks_are_zero_and_nothing_else_is() -> None:
    biases = [name for name in theirs() if name.endswith((".bias", ".b"))]
    found = convert(SOURCE, {name: x for name, x in theirs().items() if name not in biases}, "the toy").state_dict()
    assert all(not x.any() for name, x in found.items() if name.endswith(".bias"))
    tensors = theirs()
    del tensors["layer.0.ln1.weight"]
    assert "blocks.0.ln1.weight is missing (from layer.0.ln1.weight)" in sentence(tensors)


def test_a_learned_bias_of_the_scores_is_no_bias_that_may_be_absent() -> None:
    model = model_of("score_bias")
    message = sentence(theirs(), Conversion(model.config, TABLE))
    assert "blocks.0.attn.bias is missing (from no rule)" in message
    assert "blocks.1.attn.bias is missing (from no rule)" in message


def test_of_several_rules_the_first_whose_tensors_are_all_there_wins() -> None:
    wins = rules(
        ("readout.head.bias", "head.bias absent"),
        ("readout.head.bias", "head.bias", lambda _, x: x + 1),
        ("readout.head.bias", "head.bias", lambda _, x: x + 2),
    )
    found = convert(replace(SOURCE, rules=(*wins, *TABLE)), theirs(), "the toy")
    assert torch.equal(found.readout.head.bias, MODEL.readout.head.bias + 1)


def test_a_rule_knows_config_layer_and_facts() -> None:
    seen: list[tuple[object, int, object]] = []

    def note(context: Context, x: Tensor) -> Tensor:
        seen.append((context.config, context.layer, context.facts["sign"]))
        return x * context.facts["sign"]

    table = rules(("blocks.{l}.ln1.bias", "layer.{l}.ln1.bias", note), ("readout.head.bias", "head.bias", note))
    found = convert(Conversion(MODEL.config, (*table, *TABLE), facts={"sign": -1}), theirs(), "the toy")
    assert seen == [(MODEL.config, layer, -1) for layer in (0, 1, -1)]
    assert torch.equal(found.blocks[1].ln1.bias, -MODEL.blocks[1].ln1.bias)


def test_everything_that_is_wrong_is_listed() -> None:
    tensors = theirs()
    del tensors["conv.weight"], tensors["layer.1.q.w"]
    tensors["head.weight"] = torch.zeros(5, 13)
    tensors["pos"] = torch.zeros(4, 12)
    tensors["layer.0.k.w"] = torch.zeros(12, 7)
    tensors["layer.2.ln1.weight"] = torch.zeros(12)
    tensors["teacher"] = torch.zeros(1)
    message = sentence(tensors)
    assert message.startswith("the weights of the toy do not fit its architecture: ")
    for complaint in (
        "embed.patch.weight is missing (from conv.weight)",
        "blocks.1.attn.qkv.weight is missing (from layer.1.q.w + layer.1.k.w + layer.1.v.w)",
        "readout.head.weight is [5, 13] instead of [5, 12]",
        "embed.positions is [3, 12] instead of [9, 12]",
        "blocks.0.attn.qkv.weight cannot be made from layer.0.q.w + layer.0.k.w + layer.0.v.w with shapes "
        "[12, 12] + [12, 7] + [12, 12]",
        "layer.2.ln1.weight is not used",
        "teacher is not used",
        "layer.1.k.w is not used",
    ):
        assert complaint in message, complaint


def test_tensors_that_are_declared_unused_may_be_there_by_their_whole_name() -> None:
    tensors = {**theirs(), "teacher.0.w": torch.zeros(1), "steps": torch.zeros(1, dtype=torch.long)}
    convert(replace(SOURCE, unused=(r"teacher\..*", "steps")), tensors, "the toy")
    message = sentence({**tensors, "my_steps": torch.zeros(1)}, replace(SOURCE, unused=("teacher", "steps")))
    assert "teacher.0.w is not used; my_steps is not used" in message
    assert "; steps" not in message


def test_a_source_without_tensors_lacks_all_of_them() -> None:
    assert "readout.head.weight is missing" in sentence({})


def test_what_a_rule_refuses_is_said_as_it_says_it() -> None:
    def refuse(_: Context, __: Tensor) -> Tensor:
        raise UnsupportedModelError("head of another world: why")

    with pytest.raises(UnsupportedModelError, match=r"^head of another world: why$"):
        convert(replace(SOURCE, rules=rules(("readout.head.bias", "head.bias", refuse))), theirs(), "the toy")


def test_both_is_a_row_for_the_weight_and_one_for_the_bias() -> None:
    assert rules(*both("ln", "norm1 norm2", "norm", make=joined)) == (
        Rule("ln.weight", ("norm1.weight", "norm2.weight"), joined),
        Rule("ln.bias", ("norm1.bias", "norm2.bias"), joined),
        Rule("ln.weight", ("norm.weight",), joined),
        Rule("ln.bias", ("norm.bias",), joined),
    )


def test_rows_of_a_module_inside_another() -> None:
    rows = (("a", "x y", joined), ("b", "z"), ("c", ""))
    assert rules(*inside("tower.part", rows)) == rules(
        ("a", "tower.part.x tower.part.y", joined), ("b", "tower.part.z"), ("c", "")
    )
    assert rules(*inside("", rows)) == rules(*rows)


def test_a_conversion_of_a_module_inside_another() -> None:
    tensors = {f"visual.{name}": x for name, x in theirs().items()} | {"visual.teacher": torch.zeros(1)}
    inner = replace(SOURCE, unused=("teacher|student",))
    found = convert(inner.inside("visual"), tensors, "the toy")
    assert torch.equal(found.readout.head.weight, MODEL.readout.head.weight)
    assert inner.inside("visual").ignores("visual.student")
    assert not inner.inside("visual").ignores("student")
    assert not inner.inside("visual").ignores("visual_teacher")
