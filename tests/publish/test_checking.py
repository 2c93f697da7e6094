from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.files import read_json, write_json
from prisma.publish import preview
from prisma.publish.checking import check_card
from prisma.publish.prose import with_prose
from tests.run_edits import accept_changes


def test_a_card_that_is_its_data_has_no_difference(run: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text(with_prose(preview(run, "lab/tiny"), "by hand"))
    checked = check_card(run, card=card)  # the repository is the one that the card loads
    assert (checked.repo, checked.difference, checked.warnings) == ("lab/tiny", "", ())
    assert "by hand" in checked.text


def test_a_changed_number_is_shown(run: Path, tmp_path: Path) -> None:
    card = run / "README.md"
    whole = preview(run, "lab/tiny")
    accuracy = next(row for row in read_json(run / "results.json")["results"] if row["name"] == "test accuracy")
    stated = f"- **test accuracy {accuracy['value']:.4f}** on 360 images"
    card.write_text(whole.replace(stated, "- **test accuracy 0.9999** on 360 images"))
    lines = check_card(run, "lab/tiny").difference.splitlines()
    assert lines[:2] == [f"--- {card}", "+++ lab/tiny as its data renders"]
    assert [line for line in lines[2:] if line[0] in "+-"] == [
        "-- **test accuracy 0.9999** on 360 images",
        f"+{stated}",
    ]
    card.write_text(whole.rstrip("\n"))
    assert check_card(run, "lab/tiny").difference == "the two differ in how their lines end"


def test_where_the_card_is_looked_for(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checked = check_card(run)
    assert checked.path is None and checked.repo == "OWNER/digits" and 'prisma.load("OWNER/digits")' in checked.text
    there = tmp_path / "hub_cards" / "digits" / "README.md"
    there.parent.mkdir(parents=True)
    there.write_text(preview(run, "lab/digits"))
    assert check_card(run).path == Path("hub_cards/digits/README.md") and check_card(run).difference == ""
    assert check_card(run, "lab/other").path is None


def test_what_the_hub_may_not_know_is_a_warning(run: Path) -> None:
    write_json(run / "recipe.json", {**read_json(run / "recipe.json"), "license": "my-own"})
    accept_changes(run)
    (warning,) = check_card(run).warnings
    assert "found 'my-own'" in warning


def test_a_run_that_cannot_be_published_names_the_cause(run: Path) -> None:
    write_json(run / "recipe.json", {**read_json(run / "recipe.json"), "command": "another"})
    with pytest.raises(PrismaError, match=r"recipe\.json in the run .* as training wrote it; found it changed"):
        check_card(run)
    with pytest.raises(PrismaError, match="found no such file"):
        check_card(run, card=run / "absent.md")
