"""The page on sparse coders: its tables are what the benchmark measured, and what it says of them holds."""

import json

from benchmarks.sparse import BEGIN, END, FOUND, PAGE, tables


def test_the_tables_are_those_of_the_measurement() -> None:
    text, found = PAGE.read_text(), json.loads(FOUND.read_text())
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == tables(found)


def test_ours_is_faster_and_in_the_end_as_good() -> None:
    found = json.loads(FOUND.read_text())
    peers = [row for row in found["rows"] if row["library"] != "prisma"]
    assert all(row["ours_is_faster_by"] > (1.5 if row["d"] == 384 else 1) for row in peers)
    for kind in ("topk", "batchtopk"):
        last = {
            row["library"]: row["fvu_held_out"] for row in found["longer"] if (row["kind"], row["steps"]) == (kind, 300)
        }
        assert min(last, key=lambda name: last[name]) == "prisma"
