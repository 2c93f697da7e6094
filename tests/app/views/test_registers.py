"""Register neurons: found and moved as the library does, in images that the neurons were not found in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views import registers, units

import prisma
from prisma import PrismaError
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.unpack import unpack

KEYS = {"model": DIGITS, "img": "3", "outlying": "1.1", "moved": 4}


@pytest.mark.parametrize("after", [0, 1])
def test_norms_are_those_of_the_librarys_ways(
    scene: Callable[..., Scene], after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registers, "FACTORS", ("1.1",))  # norms of so small a model differ little
    there = scene(**KEYS, after=after)
    facts, arrays = unpack(units.view(there, 0).pack())
    model, tested = there.loaded.model, there.subject.test_images(64)
    x = torch.stack([picture.x for i, picture in enumerate(tested) if i != 3])
    found = prisma.register_neurons(model, x[::2], stage=after + 1, factor=1.1)
    images = torch.cat([x[1::2], there.picture.x[None]])
    moved = prisma.test_time_registers(model, images, found, n=4)
    added = prisma.with_registers(model)
    site = f"blocks.{after}.resid_post"
    stream = prisma.record(added, images, site, prisma.move_to_registers(added, found.top(4)))[1][site]
    norms, own = stream[:, 2:].norm(dim=-1), arrays["norms"]
    torch.testing.assert_close(own[2], norms[-1].double(), rtol=1e-5, atol=1e-5)
    assert facts["cutoff"] == pytest.approx(found.metadata["cutoff"]) and facts["counts"] == [len(x[::2]), len(x[1::2])]
    assert facts["above"] == (own > facts["cutoff"]).sum(1).tolist()
    assert facts["share"][2][0] == pytest.approx(float((norms[:-1] > facts["cutoff"]).float().mean()), abs=1e-6)
    assert all(low <= mean <= high for mean, low, high in facts["share"])
    assert [(layer, neuron) for layer, neuron, *_ in facts["neurons"]] == list(found.top(4))
    same = (moved.logits[:-1, 2].argmax(-1) == model(images[:-1]).argmax(-1)).float().mean()
    assert facts["same"][2] == pytest.approx(float(same)) and facts["same"][0] == 1
    answer, made = registers.registers_values(there), dict[str, Any]()
    exec(registers.registers_code(there), made)
    torch.testing.assert_close(made["norms"], torch.tensor(answer["values"]), rtol=0, atol=1e-5)
    torch.testing.assert_close(own, made["norms"].double(), rtol=0, atol=1e-5)
    assert answer["neurons"] == [list(pair) for pair in found.top(4)] and answer["ways"] == facts["ways"]
    assert (answer["outlying"], answer["after"], answer["moved"]) == ("1.1", after, 4)


def test_the_python_below_that_of_a_unit_has_its_own_imports(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registers, "FACTORS", ("1.1",))
    there, made = scene(**{**KEYS, "img": f"ink:8:{'8' * 43}"}), dict[str, Any]()
    facts, arrays = unpack(units.view(there, 0).pack())
    exec(units.view(there).facts["code"] + facts["more"], made)
    torch.testing.assert_close(arrays["norms"], made["norms"].double(), rtol=0, atol=1e-5)
    exec(facts["more"], {"loaded": made["loaded"], "x": made["x"]})


def test_of_a_large_model_fewer_images_are_read(vit_library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registers, "MOST_WORK", 1)
    there = vit_library.scene(State.of({"img": "1", "outlying": "1.5", "after": 0}))
    assert len(registers._tested(there)) == 6  # of a large model fewer images are read


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"outlying": "9"}, "expected outlying as one of 1.5, 2, 3, 5; found '9'"),
        ({"outlying": "<b>"}, "expected outlying as one of"),
        ({"after": 2}, "expected a layer from 0 to 1; found 2"),
        ({"outlying": "1.1", "moved": 257}, "expected to move 1 to 256 neurons; found 257"),
        ({"outlying": "5"}, "the model has no artifacts there, or give a lower factor"),
        ({"model": GLYPHS}, "expected a model whose blocks have MLPs"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(
    scene: Callable[..., Scene], keys: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if keys.get("outlying") == "1.1":
        monkeypatch.setattr(registers, "FACTORS", ("1.1",))
    with pytest.raises(PrismaError, match=words):
        units.view(scene(**{"model": DIGITS, "img": "3", **keys}), 0)
