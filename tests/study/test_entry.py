"""An entry of the catalog: every option has a description, and only what needs no images says so."""

from prisma.study.catalog import ANALYSES
from prisma.study.options import OPTIONS


def test_every_option_of_every_entry_is_described() -> None:
    assert {option for entry in ANALYSES.values() for option in entry.options} == set(OPTIONS)
    assert [name for name, entry in ANALYSES.items() if entry.of_weights] == ["memories", "modularity"]
    assert all(entry.summary.endswith(".") for entry in ANALYSES.values())
