"""The page on sparse coders: its tables are what the benchmark measured, and what it says of them holds."""

import json

import pytest

from benchmarks.sparse import BEGIN, COUNTS, END, FOUND, KINDS, ON_GPU, OPERATORS, PAGE, SIZES, speed_table, tables
from benchmarks.sparse_contenders import Size
from benchmarks.sparse_operators import of_ours
from tools import dashboard


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
