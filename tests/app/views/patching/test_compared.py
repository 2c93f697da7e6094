"""Estimates beside exact runs: they are the library's, by every way, and so are the exact effects beside them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views.patching import compared_code, compared_values, maps, view

import prisma
from prisma import PrismaError
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.unpack import unpack

KEYS = {"model": DIGITS, "img": "3", "corrupt": "7", "metric": "logit", "into": "corrupt"}
CALLS: dict[str, Callable[..., Any]] = {
    "atp": prisma.attribution_patching,
    "ig": lambda *pair, into: prisma.attribution_patching(*pair, steps=5, into=into),
    "relp": prisma.relevance_patching,
    "attn_lrp": lambda *pair, into: prisma.relevance_patching(*pair, rules="attn_lrp", into=into),
    "qk_fix": lambda *pair, into: prisma.atp_star(*pair, grad_drop=False, into=into),
    "atp_star": prisma.atp_star,
}


@pytest.mark.parametrize("name", list(CALLS))
def test_an_estimate_is_the_librarys(scene: Callable[..., Scene], name: str) -> None:
    there = scene(**KEYS, estimate=name, site="mlp_out")
    facts, arrays = unpack(view(there, 4).pack())
    model, metric = there.loaded.model, prisma.Logit(facts["state"]["target"])
    pair = (model, there.picture.x[None], there.corrupt.x[None])
    wanted = CALLS[name](*pair, metric, into="corrupt")
    expected = {"heads": wanted.heads[0], "tokens": wanted.mlp_tokens[0]}
    if hasattr(wanted, "sides"):
        expected |= {part: wanted.sides[0, :, i] for i, part in enumerate(("queries", "keys", "values"))}
    assert set(facts["parts"]) == set(expected) and facts["signed"] == (name != "atp_star")
    for part, values in expected.items():
        torch.testing.assert_close(arrays[f"estimate.{part}"], values.double(), rtol=0, atol=1e-6)
    for part, site in {"queries": "attn.q", "keys": "attn.k", "values": "attn.v"}.items():
        if part in expected:
            exact = prisma.activation_patching(*pair[:3], site, metric, into="corrupt", axis="head").change
            torch.testing.assert_close(arrays[f"exact.{part}"], exact.double(), rtol=0, atol=1e-5)
    answer, made = compared_values(there), dict[str, Any]()
    exec(compared_code(there), made)
    torch.testing.assert_close(made["estimate"], torch.tensor(answer["values"]), rtol=0, atol=1e-6)
    patched = prisma.activation_patching(*pair[:3], "attn.z", metric, into="corrupt", axis="head").change
    torch.testing.assert_close(torch.tensor(answer["exact"]), patched, rtol=0, atol=1e-5)
    assert (answer["estimate"], answer["axes"], set(answer["parts"])) == (
        name, ["layer", "head"], set(expected) - {"heads"},
    )  # fmt: skip
    assert answer["parts"]["tokens"]["axes"] == ["layer", "token"]


def test_what_a_way_has_no_numbers_for_is_left_out(
    scene: Callable[..., Scene], vit_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert view(scene(model=DIGITS, estimate="relp", site="resid_post"), 4).facts["parts"] == ["heads"]
    assert view(scene(model=DIGITS, estimate="qk_fix"), 4).facts["parts"] == ["heads", "queries", "keys", "values"]
    with pytest.raises(PrismaError, match=r"expected a model of 2 layers or more for AtP\*; found 1"):
        view(scene(model=GLYPHS, estimate="atp_star"), 4)
    with pytest.raises(PrismaError, match=r"expected estimate as atp, ig, .* or atp_star; found 'x'"):
        scene(estimate="x")
    monkeypatch.setattr(maps, "QUICK", 0)
    found = view(vit_library.scene(State.of({"img": "1", "estimate": "qk_fix"})), 4)
    assert not [name for name in found.arrays if name.startswith("exact.")]  # of a large model that takes too long
