"""The page on editing: its table is what the benchmark measured."""

import json
from pathlib import Path

from benchmarks.editing import BEGIN, END, MEASURES, in_words, rows_of, table

ROOT = Path(__file__).parents[2]


def test_the_table_is_that_of_the_measurement() -> None:
    text = (ROOT / "docs" / "editing.md").read_text()
    found = json.loads((ROOT / "benchmarks" / "editing.json").read_text())
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == f"{in_words(found)}\n\n{table(found)}"


def test_averaged_keys_of_the_last_layer_generalise_and_stay_local() -> None:
    rows = rows_of(json.loads((ROOT / "benchmarks" / "editing.json").read_text()))
    last, one = (rows[f"layer 5, key of {images}"][0] for images in ("64 images", "1 image"))
    generalisation, locality = MEASURES.index("generalisation"), MEASURES.index("locality")
    assert last[generalisation] > 0.9 and last[locality] > 0.98
    assert one[generalisation] < last[generalisation]
