"""The page on sparse coders: its tables are what the benchmark measured, and what it says of them holds."""

import json

import pytest
import torch

from benchmarks.sparse import BEGIN, COUNTS, END, FOUND, KINDS, ON_GPU, OPERATORS, PAGE, SIZES, speed_table, tables
from benchmarks.sparse_contenders import Size
from benchmarks.sparse_operators import of_ours
from prisma.sparse.coders import CoderConfig
from prisma.sparse.learner import Plan
from prisma.sparse.scaling import Scaling
from tools import coder_beginnings, dashboard


def test_the_tables_are_those_of_the_measurement() -> None:
    text = PAGE.read_text()
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == tables()


def test_ours_is_faster_and_as_good_after_equal_steps() -> None:
    found = json.loads(FOUND.read_text())
    peers = [row for row in found["rows"] if row["library"] != "prisma"]
    assert all(row["ours_is_faster_by"] > (1.5 if row["d"] == 384 else 1) for row in peers)
    fvu = {(row["d"], row["kind"], row["steps"], row["library"]): row["fvu_held_out"] for row in found["quality"]}
    assert {key[:3] for key in fvu} == {
        (shape[0], kind, steps) for shape in SIZES for kind in KINDS for steps in COUNTS
    }
    assert all(fvu[(*key[:3], "prisma")] <= 1.02 * value for key, value in fvu.items())


def test_no_more_latents_die_than_are_superfluous() -> None:
    rows = json.loads(FOUND.read_text())["quality"]
    assert all(row["dead"] < 0.5 for row in rows if row["library"] == "prisma")
    assert any(row["dead"] > 0.8 for row in rows if row["library"] == "sae-lens")


def test_the_figures_of_the_coder_of_real_weights_are_those_of_its_training() -> None:
    found = json.loads(dashboard.NUMBERS.read_text())
    text = PAGE.read_text()
    assert text == dashboard.page(text, found), "run tools/dashboard.py"
    assert found["fvu"] <= 0.12 and found["dead"] == 0 and found["fvu"] < found["fvu_held_out"] < 1


@pytest.mark.parametrize("kind", KINDS)
def test_our_step_asks_a_gpu_for_one_product_and_no_number(kind: str) -> None:
    small = of_ours(Size(kind, 16, 600, 4), 32).row()
    assert small["waits"] == 0 and small["gflop"] == round(2 * 32 * 16 * 600 / 1e9, 1)
    rows = {row["library"]: row for row in json.loads(OPERATORS.read_text()) if row["kind"] == kind}
    assert rows["prisma"]["waits"] == 0 and rows["prisma"]["operators"] == small["operators"]
    assert all(rows["prisma"]["moved_mb"] < row["moved_mb"] for name, row in rows.items() if name != "prisma")


def test_a_measurement_on_a_gpu_has_its_memory_beside_it() -> None:
    found = json.loads(FOUND.read_text()) | {"device": "a GPU", "products": "float32"}
    table = speed_table(found | {"rows": [row | {"gpu_mib": 1234.5} for row in found["rows"]]})
    assert table[0].startswith("On a GPU, products in float32, ") and table[-1].endswith(" | 1,234 |")
    assert not ON_GPU.exists() or ("On NVIDIA" in PAGE.read_text())


def test_the_table_of_beginnings_is_that_of_its_numbers_and_they_say_what_the_page_does() -> None:
    text, found = PAGE.read_text(), json.loads(coder_beginnings.NUMBERS.read_text())
    start, end = coder_beginnings.BEGIN, coder_beginnings.END
    assert text[text.index(start) + len(start) : text.index(end)].strip() == coder_beginnings.table(found)
    for site in {row["site"] for row in found["rows"]}:
        rows = {(row["how"], row["gain"]): row for row in found["rows"] if row["site"] == site}
        plain, tokens, points = (
            rows[how, 0] for how in ("plain", "plain, begun at tokens", "plain, begun at k-means points")
        )
        slow, *_, fast = (rows["archetypal", gain] for gain in coder_beginnings.GAINS)
        assert plain["likeness"] + 0.05 < tokens["likeness"] < points["likeness"]
        assert max(tokens["fvu_held_out"]) < 1.05 * max(plain["fvu_held_out"])
        assert slow["likeness"] > fast["likeness"] and min(slow["fvu_held_out"]) > 1.1 * max(fast["fvu_held_out"])
        assert max(fast["fvu_held_out"]) < 1.05 * max(plain["fvu_held_out"])
        assert abs(points["likeness"] - fast["likeness"]) < 0.05
    assert all(x["data"]["fvu_held_out"] > 1.2 * x["random"]["fvu_held_out"] for x in found["planted"])
    assert all(x["data"]["dead"] == 0 for x in found["planted"])


def test_rows_of_an_archetypal_decoder_are_convex_combinations_of_points() -> None:
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    points = coder_beginnings.kmeans(x, 12)
    assert (
        torch.cdist(x, points).amin(1).square().mean() < 0.7 * torch.cdist(x, x[:12]).amin(1).square().mean()
    ).item()
    plan = Plan(CoderConfig("topk", 6, 5, 2), 0, 1e-2, None, 10**6)
    one = coder_beginnings.Archetypal(plan, 5, points, 4.0)
    first = one.weights.detach().clone()
    errors = [one.step(some, some).error.item() for some in x.split(40)]
    rows = (4.0 * one.weights).softmax(1) @ points
    assert errors[-1] < errors[0] and not torch.equal(one.weights, first)
    assert torch.allclose(one.coder.W_dec, rows / rows.norm(dim=1, keepdim=True))
    same = Scaling(torch.zeros(6), torch.ones(6), 0.0)
    assert torch.allclose(one.finished(same, same).W_dec, one.coder.W_dec)
