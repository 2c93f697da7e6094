"""The whole list on one mouse: the same seed gives the same bytes, and a call that was stopped goes on."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from prisma.errors import PrismaError
from prisma.mechanisms import Mechanism
from prisma.mechanisms import mechanism as measure
from prisma.mechanisms.catalog import STEPS
from prisma.train.objectives import OBJECTIVES
from tests.planted_mouse import mouse, subject

module = import_module("prisma.mechanisms.mechanism")


def test_the_same_seed_gives_the_same_bytes_and_threads_stay() -> None:
    threads = torch.get_num_threads()
    some = [measure(subject(), limit=24, pairs=8, seed=seed) for seed in (3, 3)]
    assert some[0] == some[1] and some[0].to_json() == some[1].to_json()
    assert torch.get_num_threads() == threads
    assert [one.step for one in some[0].steps] == [step.name for step in STEPS]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """The list without its slowest step."""
    steps = tuple(step for step in STEPS if step.name != "circuit")
    monkeypatch.setattr(module, "STEPS", steps)
    return len(steps)


def test_another_seed_draws_other_images(few: int) -> None:
    assert measure(subject(), limit=24, pairs=8).steps != measure(subject(), limit=24, pairs=8, seed=1).steps


def test_a_call_that_was_stopped_goes_on(tmp_path: Path, few: int) -> None:
    kept, said = tmp_path / "kept.json", list[str]()
    whole = measure(subject(), limit=32, pairs=12)

    def stop(line: str) -> None:
        if line.startswith("patching"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(subject(), limit=32, pairs=12, kept=kept, say=stop)
    assert [one.step for one in Mechanism.parse(kept.read_bytes()).steps] == ["answers", "heads", "lens"]
    for other in ({"limit": 31}, {"seed": 1}):  # of other settings it is not taken
        lines = list[str]()
        measure(subject(), **{"limit": 32, "pairs": 12, "kept": tmp_path / "x", "say": lines.append} | other)  # type: ignore[arg-type]
        assert len(lines) == few
    assert measure(subject(), limit=32, pairs=12, kept=kept, say=said.append) == whole
    assert [line.split(":")[0] for line in said] == ["patching", "dynamics"]
    said.clear()  # of a call that was finished, whose card was not written yet, nothing is lost either
    assert measure(subject(), limit=32, pairs=12, kept=kept, say=said.append) == whole and not said


def test_damaged_or_other_steps_are_computed_anew(tmp_path: Path, few: int) -> None:
    kept = tmp_path / "kept.json"
    for data in (b"damaged", replace(measure(subject(), limit=32, pairs=12), weights="1" * 64).to_json()):
        kept.write_bytes(data)
        lines = list[str]()
        measure(subject(), limit=32, pairs=12, kept=kept, say=lines.append)
        assert len(lines) == few


def test_an_objective_without_a_measure_has_a_sentence_for_each_step() -> None:
    masked = OBJECTIVES["masked"].__new__(OBJECTIVES["masked"])
    found = measure(replace(subject(), objective=masked), limit=16, pairs=12)
    says = {one.step: [finding.says for finding in one.findings] for one in found.steps}
    assert says == {
        "answers": ["no_measure"], "heads": ["no_measure"], "lens": ["no_measure"],
        "patching": ["no_pairs_of_classes"], "circuit": ["no_pairs_of_classes"], "dynamics": ["no_measure"],
    }  # fmt: skip


def test_a_step_that_an_analysis_refuses_says_so_and_answers_that_are_not_finite_are_an_error(few: int) -> None:
    silent, lines = mouse(), list[str]()
    head = silent.readout.head
    head.weight.data *= 1e-30  # type: ignore[union-attr]
    found = measure(replace(subject(), model=silent), limit=32, pairs=12, say=lines.append)
    assert [one.findings[0].says for one in found.steps if one.step == "answers"] == ["accuracy"]
    head.weight.data.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(PrismaError):
        measure(replace(subject(), model=silent), limit=32, pairs=12)


@pytest.mark.parametrize("wrong", [{"limit": 15}, {"pairs": 7}, {"seed": -1}, {"limit": 10**9}, {"limit": "many"}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(PrismaError, match="expected"):
        measure(subject(), **wrong)  # type: ignore[arg-type]
