"""An outline takes no memory and knows its constants; filled, it is the model, with the very tensors it was given."""

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


def test_constants_that_no_machine_can_hold_are_one_sentence() -> None:
    config = config_of("base", image_size=10**6, patch_size=1, rotary="axial", n_heads=1)
    with pytest.raises(PrismaError, match="expected a model that fits into this machine") as error:
        outline(config)
    assert "\n" not in str(error.value)
