"""Units: the numbers of every image, computed one image at a time; and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views import units

import prisma
from prisma import PrismaError
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.unpack import unpack


def slowly(there: Scene, x: torch.Tensor, site: str, head: int | None) -> torch.Tensor:
    """[token, unit] of one image; of the logits [1, unit]."""
    acts = prisma.record(there.loaded.model, x[None], site)[1][site][0]
    return acts[None] if acts.ndim == 1 else acts if head is None else acts[:, head]


@pytest.mark.parametrize(
    ("keys", "site", "head"),
    [
        ({"layer": 1, "number": 7}, "blocks.1.mlp.post", None),
        ({"units": "attn.z", "head": 2, "number": 3, "step": 8}, "blocks.0.attn.z", 2),
        ({"units": "logits"}, "logits", None),
    ],
)
def test_a_unit_is_what_it_is_in_each_image(
    scene: Callable[..., Scene], keys: dict[str, Any], site: str, head: int | None
) -> None:
    there = scene(model=DIGITS, img="3", **keys)
    facts, arrays = unpack(units.view(there).pack())
    tested = there.subject.test_images(256)
    each = torch.stack([slowly(there, picture.x, site, head) for picture in tested])
    patches = each[:, -16:] if each.shape[1] > 1 else each
    largest, here = patches.amax(1), slowly(there, there.picture.x, site, head)
    own = here[-16:].amax(0)
    at = keys.get("number", int(own.argmax()))
    wanted = largest[:, at].sort(descending=True, stable=True)
    assert facts["site"] == site and facts["state"]["number"] == at and facts["count"] == each.shape[-1]
    assert facts["read"] == len(tested) and facts["own"] == pytest.approx(float(own[at]), abs=1e-5)
    torch.testing.assert_close(arrays["values"], wanted.values.double(), rtol=0, atol=1e-5)
    order = arrays["order"].long()
    torch.testing.assert_close(largest[order, at], wanted.values, rtol=0, atol=1e-5)
    assert facts["captions"] == [tested[i].caption for i in order[:12]]
    shown = there.subject.shown(torch.stack([tested[i].x for i in order[:12]]))
    assert arrays["pictures"].numel() == len(shown.data)
    torch.testing.assert_close(arrays["all.own"], own.double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(arrays["all.most"], largest.amax(0).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(arrays["all.mean"], largest.mean(0).double(), rtol=0, atol=1e-5)
    labels = [tested[i].label for i in order[:12]]
    assert labels.count(int(arrays["all.common"][at])) == arrays["all.shared"][at] == max(map(labels.count, labels))
    if each.shape[1] == 1:
        assert "maps" not in arrays and facts["grid"] is None
    else:
        torch.testing.assert_close(arrays["maps"], patches[order[:12], :, at].double(), rtol=0, atol=1e-5)
        torch.testing.assert_close(arrays["tokens"], here[:, at].double(), rtol=0, atol=1e-5)
    answer, made = units.values(there), dict[str, Any]()
    exec(units.code(there), made)
    assert answer["axes"] == ["rank"] and answer["images"] == made["order"].tolist() == order.tolist()
    torch.testing.assert_close(made["values"], torch.tensor(answer["values"]), rtol=0, atol=1e-6)
    tokens = answer["tokens"]["values"] if answer["tokens"] else answer["own"]
    torch.testing.assert_close(made["own"], torch.tensor(tokens), rtol=0, atol=1e-6)


def test_a_model_without_mlps_offers_its_other_units(scene: Callable[..., Scene]) -> None:
    facts = units.view(scene(model=GLYPHS)).facts
    assert facts["site"] == "blocks.0.resid_pre" and "mlp.post" not in [kind for kind, *_ in facts["kinds"]]


def test_of_a_large_model_fewer_images_are_read(vit_library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    there = vit_library.scene(State.of({"img": "4", "layer": 1}))
    facts, arrays = unpack(units.view(there).pack())
    assert facts["read"] == len(there.subject.examples()) == 11 and arrays["pictures"].shape[1:3] == (96, 96)
    assert bool((arrays["all.common"] == -1).all())  # its pictures have no labels
    assert units.values(there)["images"] == arrays["order"].tolist()
    monkeypatch.setattr(units, "MOST_BYTES", 4 * 192 * 196 * 3)
    assert units._most(there, 192) == 3


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"units": "<b>"}, "expected units among mlp.post, resid_pre, .*, logits; found '<b>'"),
        ({"units": "blocks.0.mlp.post"}, "expected units among"),
        ({"units": "*"}, "expected units among"),
        ({"number": 128}, "expected a unit of blocks.0.mlp.post from 0 to 127; found 128"),
        ({"number": 10**9}, "expected a unit of blocks.0.mlp.post from 0 to 127; found 1000000000"),
        ({"layer": 2}, "expected a layer from 0 to 1; found 2"),
        ({"units": "attn.q", "head": 4}, "expected a head from 0 to 3; found 4"),
        ({"img": "20"}, "expected an example from 0 to 19"),
    ],
)
def test_what_does_not_exist_is_one_sentence(scene: Callable[..., Scene], keys: dict[str, Any], words: str) -> None:
    with pytest.raises(PrismaError, match=words):
        units.view(scene(model=DIGITS, **keys))
    with pytest.raises(PrismaError, match=r"expected part 0 \(register neurons\) of units; found 1"):
        units.view(scene(model=DIGITS), 1)
