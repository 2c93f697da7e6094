"""What differs between a run and what is published is what publishing would change."""

import json
from pathlib import Path

import pytest

from prisma.publish import Difference, diff, publish
from prisma.publish.things import hub_for
from tests.run_edits import accept_changes


def rows(run: Path, address: Path | None) -> list[tuple[str, str, str]]:
    return [(row.revision, row.file, row.found) for row in diff(run, "lab/tiny", address)]


def test_a_published_run_has_no_differences(run: Path, address: Path | None) -> None:
    assert rows(run, address) == []


def test_every_kind_of_difference_is_named_and_gone_after_publishing(run: Path, address: Path | None) -> None:
    (metrics := run / "metrics.jsonl").write_text(metrics.read_text().replace("{", "{ ", 1))
    accept_changes(run)
    hub = hub_for(run, "lab/tiny", address)
    with hub.writing():
        hub.rename("step-000001", "step-000099")
    assert rows(run, address) == [
        ("step-000001", "", "not published"),
        ("main", "metrics.jsonl", "other bytes"),
        ("step-000099", "", "only on the hub"),
    ]
    publish(run, "lab/tiny", address, replace=True, progress=False)
    assert rows(run, address) == []


def test_nothing_is_published_there(run: Path, tmp_path: Path) -> None:
    found = diff(run, "lab/other", tmp_path / "empty")
    assert {row.found for row in found} == {"not published"}
    assert [row.revision for row in found][-1] == "main"
    assert not (tmp_path / "empty").exists()
    assert json.dumps(Difference("main", "", "not published").to_dict())


@pytest.mark.parametrize("repo", ["tiny", "a/b/c"])
def test_a_wrong_name_is_one_sentence(run: Path, tmp_path: Path, repo: str) -> None:
    with pytest.raises(ValueError, match="expected OWNER/NAME"):
        diff(run, repo, tmp_path)
