"""Circuits of latents, against activations that are put together by hand and planted ones, in float64."""

import pytest
import torch

import prisma
from prisma.errors import PrismaError
from prisma.sparse.latent_circuit import _Runs, latent_circuit
from prisma.sparse.latent_nodes import Nodes
from tests.sparse.test_latent_attribution import METRIC
from tests.sparse.test_latent_nodes import FIRST, SECOND, planted, random_pair, transcoder

ABLATIONS = ("corrupt", "mean", "zero")


@pytest.mark.parametrize(("ablation", "second"), [*((a, SECOND) for a in ABLATIONS), ("corrupt", "blocks.1.mlp_out")])
def test_nodes_outside_are_those_of_the_ablation_and_those_inside_are_computed_anew(ablation: str, second: str) -> None:
    model, clean, corrupt, coders = random_pair()
    if second != SECOND:  # of a transcoder
        coders[1] = transcoder()
    nodes = Nodes.of(model, coders)
    source = nodes.record(model, corrupt)[2]
    z, e = ({site: getattr(code, name) for site, code in source.items()} for name in ("z", "error"))
    if ablation == "mean":
        z, e = ({site: x.mean(0, keepdim=True).expand_as(x) for site, x in by.items()} for by in (z, e))
    if ablation == "zero":
        z, e = ({site: 0 * x for site, x in by.items()} for by in (z, e))
    inside = torch.rand(20, generator=torch.Generator().manual_seed(1)) < 0.5
    inside[9], inside[19] = True, False  # the error of the first site, and that of the second

    def value(site: str, part: torch.Tensor, x: torch.Tensor, reads: torch.Tensor) -> torch.Tensor:
        """The site in the circuit's run."""
        coder, (latents, error) = nodes.coders[site], (part[:9], part[9])
        own = coder.encode(reads)
        code = torch.where(latents, own, z[site])
        left = x - own @ coder.W_dec - coder.b_dec if error else e[site]
        return code @ coder.W_dec + coder.b_dec + left

    x = prisma.record(model, clean, FIRST)[1][FIRST]
    first = value(FIRST, inside[:10], x, x)
    read = nodes.coders[second].site
    seen = prisma.record(model, clean, [read, second], {FIRST: prisma.Set(first)})[1]
    last = value(second, inside[10:], seen[second], seen[read])
    by_hand = METRIC(prisma.run(model, clean, {FIRST: prisma.Set(first), second: prisma.Set(last)}))
    runs = _Runs(model, nodes, clean, corrupt, METRIC, ablation, 2)
    found, everything, none = runs.measure([inside, inside | True, inside & False])
    assert torch.allclose(found, by_hand, atol=1e-10)
    assert torch.allclose(everything, METRIC(model(clean)), atol=1e-12)
    if ablation == "corrupt" and second == SECOND:  # the last site has the other run's value
        assert torch.allclose(
            none,
            METRIC(prisma.run(model, clean, {SECOND: prisma.Set(prisma.record(model, corrupt, SECOND)[1][SECOND])})),
            atol=1e-10,
        )


def test_a_planted_circuit_is_found_and_random_ones_are_not_faithful() -> None:
    model, clean, corrupt, before, after = planted()
    found = latent_circuit(model, [before, after], clean, corrupt, prisma.LogitDiff(0, 1))
    sites = ("blocks.0.resid_pre", "blocks.0.resid_post")
    assert set(found.named()) == {(site, g) for site in sites for g in (0, 1)}
    assert found.faithfulness == pytest.approx(1) and found.completeness == pytest.approx(1)
    assert found.sizes.tolist() == [1, 2, 3, 4] and len(found.random_faithfulness) == 10
    half = latent_circuit(model, [before, after], clean, corrupt, prisma.LogitDiff(0, 1), n=1)
    assert half.faithfulness < 0.6 and int(half.inside.sum()) == 1
    assert half.faithful is False and half.to_dict()["figures"]["faithfulness"]["value"] == half.faithfulness


def test_without_errors_a_coder_that_misses_something_cannot_be_faithful() -> None:
    model, clean, corrupt, before, _ = planted()
    before.W_enc[:, 1] = 0  # glyph 1 has no latent any more, so it is in the error
    metric = prisma.LogitDiff(0, 1)
    with_errors = latent_circuit(model, before, clean, corrupt, metric)
    without = latent_circuit(model, before, clean, corrupt, metric, errors=False)
    assert with_errors.named()[0] in {("blocks.0.resid_pre", None), ("blocks.0.resid_pre", 0)}
    assert with_errors.faithfulness == pytest.approx(1) and ("blocks.0.resid_pre", None) in with_errors.named()
    assert without.faithfulness == pytest.approx(0.5) and without.named() == [("blocks.0.resid_pre", 0)]


def test_what_cannot_be_asked_is_said() -> None:
    model, clean, corrupt, coders = random_pair()
    for arguments, message in (
        ({"ablation": "noise"}, "expected ablation to be one of corrupt, mean, zero; found 'noise'"),
        ({"enough": 2.0}, "expected enough from 0 to 1"),
        ({"n": 0}, "expected n from 1 to"),
        ({"corrupt": clean}, "expected clean and corrupt runs that differ in the metric"),
    ):
        with pytest.raises(PrismaError, match=message):
            latent_circuit(model, coders, **{"clean": clean, "corrupt": corrupt, "metric": METRIC, **arguments})


def test_a_transcoder_has_its_latents_in_a_circuit() -> None:
    model, clean, corrupt, (first, _) = random_pair()
    few = {"steps": 1, "draws": 2}
    found = latent_circuit(model, [first, transcoder()], clean, corrupt, METRIC, **few)
    assert found.metadata["sites"] == (FIRST, "blocks.1.mlp_out") and len(found.nodes) == 20
    whole = latent_circuit(
        model, [first, transcoder()], clean, corrupt, METRIC, steps=1, draws=2, n=int(found.sizes[-1])
    )
    assert whole.faithfulness == pytest.approx(1)
