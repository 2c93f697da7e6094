"""An outline takes no memory and knows its constants; filled, it is the model, with the very tensors it was given."""

from typing import Any

import pytest
import torch

from prisma import PrismaError
from prisma.outline import filled, outline
from tests.variants import TEXTS, VARIANTS, config_of, ids_of, images_of, model_of, tower_of

MODELS = {
    **{variant: (model_of, images_of, variant) for variant in VARIANTS},
    **{f"text_{variant}": (tower_of, ids_of, variant) for variant in TEXTS},
}


def test_an_outline_that_is_filled_is_the_model() -> None:
    for case, (make, inputs_of, variant) in MODELS.items():
        model = make(variant, torch.float32)
        before = torch.get_rng_state()
        empty = outline(model.config)
        assert torch.equal(torch.get_rng_state(), before), case
        assert all(x.is_meta for x in empty.state_dict().values()), case
        assert not any(x.is_meta for name, x in empty.named_buffers() if name not in empty.state_dict()), case
        weights = model.state_dict()
        found = filled(empty, weights)
        assert found is empty, case
        assert not found.training, case
        assert not any(x.requires_grad for x in found.parameters()), case
        assert {x.data_ptr() for x in found.state_dict().values()} == {x.data_ptr() for x in weights.values()}, case
        inputs = inputs_of(model)
        with torch.no_grad():
            assert torch.equal(found(inputs), model(inputs)), case


def test_weights_keep_their_precision() -> None:
    weights = {name: x.bfloat16() for name, x in model_of("base").state_dict().items()}
    assert {x.dtype for x in filled(outline(config_of("base")), weights).parameters()} == {torch.bfloat16}


def test_constants_that_no_machine_can_hold_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """766 GB are refused before anything is computed, and by the allocator of a machine that seems to have them."""
    config = config_of("base", image_size=999, patch_size=1, rotary="axial", n_heads=1, d_head=24_000)
    with pytest.raises(
        PrismaError, match=r"constants of this model to fit into this machine's memory of .*GB; found 766"
    ):
        outline(config)
    monkeypatch.setattr("prisma.bounds.machine_memory", lambda: 2**62)
    with pytest.raises(PrismaError, match="expected a model that fits into this machine") as error:
        outline(config)
    assert "\n" not in str(error.value)


def test_filling_a_model_looks_at_each_weight_once() -> None:
    """The time grows with the number of tensors, not with its square: twice the tensors, twice the look-ups."""

    class Counted(dict[str, torch.Tensor]):
        seen = 0

        def items(self) -> Any:
            Counted.seen += len(self)
            return super().items()

    counts = []
    for layers in (20, 40):
        model = model_of("base", torch.float32, n_layers=layers)
        Counted.seen = 0
        filled(outline(model.config), Counted(model.state_dict()))
        counts.append(Counted.seen / len(model.state_dict()))
    assert counts == [1, 1]
