"""The page on editing: its table is what the benchmark measured."""

import json
from pathlib import Path

from benchmarks.editing import BEGIN, END, in_words, table

ROOT = Path(__file__).parents[2]


def test_the_table_is_that_of_the_measurement() -> None:
    text = (ROOT / "docs" / "editing.md").read_text()
    found = json.loads((ROOT / "benchmarks" / "editing.json").read_text())
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == f"{in_words(found)}\n\n{table(found)}"


def test_averaged_keys_of_the_last_layer_generalise_and_stay_local() -> None:
    rows = {x["edit"]: x for x in json.loads((ROOT / "benchmarks" / "editing.json").read_text())["rows"]}
    last, one = rows["layer 5, key of 64 images"], rows["layer 5, key of 1 image"]
    assert last["generalisation"][0] > 0.9 and last["locality"][0] > 0.98
    assert one["generalisation"][0] < last["generalisation"][1]
