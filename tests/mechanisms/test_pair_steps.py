"""Patching and circuits: the known parts carry the difference, and numbers are those of the analyses."""

import pytest

import prisma
from prisma.mechanisms import pair_steps
from prisma.mechanisms.findings import rounded
from prisma.mechanisms.pair_steps import DRAWS, STEPS, circuit, evaluated, patching
from tests.planted_mouse import given


def test_only_the_known_heads_carry_the_difference() -> None:
    some = given()
    found = patching(some)
    carried = [one.names[0] for one in found.findings if one.says == "carries"]
    assert set(carried) == {"head 0.1", "head 1.2"} and found.findings[-1].numbers == (2, 6)
    assert found.findings[0].says == "pairs_at_random" and found.findings[0].numbers[0] == 24
    pairs = some.test_pairs
    by_hand = prisma.activation_patching(some.model, pairs.clean, pairs.corrupt, "attn.z", pairs.metric, axis="head")
    low, high = by_hand.interval("normalised")[:, 1, 2].tolist()
    assert found.row("patching", "head 1.2").cells == (
        (rounded(by_hand.normalised()[1, 2]), rounded(low), rounded(high)),
    )


def test_the_circuit_has_the_edge_of_an_induction_head_beside_random_ones() -> None:
    some = given()
    found = circuit(some)
    said = {one.says: one for one in found.findings}
    assert said["induction"].names == ("a0.h1", "a1.h2.k") and said["induction"].in_card
    assert said["induction"].numbers[1] > 0  # its interval leaves out 0
    chosen, judged = some.training_pairs, some.test_pairs
    settings = {"draws": DRAWS, "seed": 0, "steps": STEPS}
    edges = prisma.circuit_discovery(some.model, chosen.clean, chosen.corrupt, chosen.metric, **settings).named()  # type: ignore[arg-type]
    checked = prisma.check_circuit(some.model, judged.clean, judged.corrupt, judged.metric, edges, **settings)  # type: ignore[arg-type]
    chance = checked.random_faithfulness
    assert said["circuit"].numbers[0] == len(edges) and said["circuit"].numbers[2] == rounded(checked.faithfulness)
    assert said["circuit"].numbers[5:] == (rounded(chance.min()), rounded(chance.max()), DRAWS)
    assert said["circuit"].numbers[2] > 0.9 > said["circuit"].numbers[6] or said["circuit"].numbers[5] < 0.5
    assert {row.name for row in found.table("edges")} == {f"{a} > {b}" for a, b in edges}
    curves = evaluated(some)
    assert said["cmd"].numbers[:3] == tuple(rounded(x) for x in (curves.cmd, *curves.interval("cmd")))
    assert said["cmd"].numbers[3:5] == (rounded(curves.random_cmd.min()), rounded(curves.random_cmd.max()))


def test_rows_of_sizes_are_the_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    some = given()
    monkeypatch.setattr(pair_steps, "MOST_EDGES", 3)
    found = circuit(some)
    curves = evaluated(some)
    assert [one.says for one in found.findings] == ["too_many_edges", "size", "cmd", "cpr", "circuit_pairs"]
    for row in found.table("sizes"):
        i = [f"{p:g}" for p in pair_steps.PROPORTIONS].index(row.name)
        assert row.cells[0] == (float(curves.edges[i]),)
        assert row.cells[1][0] == rounded(curves.faithfulness[i])
        low, high = row.cells[1][1:]
        assert low <= row.cells[1][0] <= high
        assert row.cells[2][0] == rounded(curves.random_faithfulness[:, i].mean())
