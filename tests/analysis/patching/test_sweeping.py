"""What a sweep patches, and where in a block it starts. That the runs are right: test_activation_patching."""

import pytest
import torch
from torch import Tensor

from prisma import PrismaError, ViT, record
from prisma.analysis.patching import sweeping
from prisma.analysis.patching.sweeping import SourceRun, Units, attention_stream, patched_runs
from tests.variants import images_of, model_of, tower_of

SEED = torch.Generator().manual_seed(0)


def test_units_are_heads_or_tokens_unless_told() -> None:
    model = model_of("base")
    assert Units(model, "attn.hook_z", None, None).axis == "head"
    assert Units(model, "resid_mid", None, None).axis == "token"
    assert Units(model, "mlp.post", "d_mlp", None).axis == "d_mlp"
    with pytest.raises(PrismaError, match="whole site, which cannot be grouped; found groups=2"):
        Units(model, "attn_out", "component", 2)


def test_attention_reads_the_stream_after_time_in_divided_attention() -> None:
    assert attention_stream(model_of("base"), 1) == "blocks.1.resid_pre"
    assert attention_stream(model_of("divided"), 1) == "blocks.1.resid_time"
    assert attention_stream(tower_of("base"), 0) == "blocks.0.resid_pre"


@pytest.mark.parametrize("site", ["blocks.0.attn.z", "blocks.*.attn.z", "blocks.1.attn.hook_z"])
def test_a_site_with_the_number_of_a_block_is_named_as_it_was_written(site: str) -> None:
    with pytest.raises(PrismaError, match=r"^expected a site of every block, without its number, .*; found ") as error:
        Units(model_of("base"), site, None, None)
    assert str(error.value).endswith(f"found {site!r}")


def test_a_site_that_is_none_is_named_as_it_was_written() -> None:
    with pytest.raises(PrismaError, match=r"^no site of this model matches 'attn.x'; the nearest are attn\."):
        Units(model_of("base"), "attn.x", None, None)
    with pytest.raises(PrismaError, match=r"expected one site of every block, such as attn\.z; found 'attn\.\*'"):
        Units(model_of("base"), "attn.*", None, None)


@pytest.mark.parametrize("site", ["resid_pre", "attn.z", "attn_out", "resid_mid", "mlp.post", "mlp_out", "resid_post"])
def test_runs_of_several_layers_that_go_on_together_are_those_of_each_alone(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, passed = model_of("registers", n_layers=4), list[int]()
    inputs, others = images_of(model, 2), images_of(model, 2, seed=2)
    units = Units(model, site, None, None)
    chosen = torch.rand(model.config.n_layers, len(units.masks(_site(model, others, units))), generator=SEED) < 0.6
    chosen[1] = False  # nothing of this layer

    def runs(size: int, cells: Tensor | None) -> Tensor:
        return patched_runs(
            model, inputs, units, lambda rows: SourceRun(model, others[rows], units), size, cells
        ).patched

    wanted = {cells is None: runs(2, cells) for cells in (None, chosen)}
    once = sweeping._Together.pass_block
    monkeypatch.setattr(
        sweeping._Together, "pass_block", lambda self, layer: (passed.append(self.rows), once(self, layer))
    )
    for cells in (None, chosen):
        for size in (64, 13):
            torch.testing.assert_close(runs(size, cells), wanted[cells is None], rtol=0, atol=1e-12)
    assert max(passed) > 2, "some were together"


def _site(model: ViT, inputs: Tensor, units: Units) -> Tensor:
    return record(model, inputs, units.sites[:1])[1][units.sites[0]]
