"""The guide for contributors: the files that it gives as examples exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| `(\S+)` \| .+ \| `(\S+)` \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)


def test_there_is_a_list_for_each_addition() -> None:
    headings = re.findall(r"^### (.+)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert headings == ["An analysis", "A family of pretrained models", "A task and its mouse", "A view of the app"]
    assert len(ROWS) >= 20


@pytest.mark.parametrize(("pattern", "example"), ROWS)
def test_an_example_exists_and_fits_its_pattern(pattern: str, example: str) -> None:
    assert (ROOT / example).is_file()
    placeholders = (
        re.sub(r"[A-Z]{3,}(?![a-z]*\.md)", r"\\w+", re.escape(pattern))
        if "README" not in pattern
        else re.escape(pattern)
    )
    assert re.fullmatch(placeholders, example)


@pytest.mark.parametrize(
    "name", ["AGENTS.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "mkdocs.yml", ".pre-commit-config.yaml"]
)
def test_what_people_expect_of_a_repository_is_there(name: str) -> None:
    assert (ROOT / name).read_text().strip()
