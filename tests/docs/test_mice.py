"""docs/mice.md is what its script writes, and the published table is reached."""

import json

from prisma.recipes import TABLES
from tools.mice import PAGE, ROOT, page


def test_the_page_is_what_the_results_say() -> None:
    assert PAGE.read_text() == page(), "run python tools/mice.py"


def test_every_row_of_the_table_reaches_the_published_accuracy() -> None:
    for recipe in TABLES["dsprites"]:
        found = json.loads((ROOT / "hub_cards" / recipe.name / "results.json").read_text())
        accuracy = next(row["value"] for row in found["results"] if row["name"] == "test accuracy")
        assert found["recipe"] == recipe.name and found["steps"] == recipe.training.steps
        assert recipe.published_accuracy is not None and round(accuracy, 3) >= recipe.published_accuracy
        assert recipe.expected_accuracy == round(accuracy, 4)
