"""Feature visualisation at the command line."""

import json
from pathlib import Path

from tests.cli.running import Prisma, one_sentence

OF = ("features", "--model", "mice/digits", "--images", "digits", "--limit", "8", "--steps", "2", "--out", "out")


def test_units_are_visualised_and_the_same_command_goes_on(prisma: Prisma, tmp_path: Path) -> None:
    units = ("--unit", "logits:3", "--unit", "blocks.0.mlp.post:0-1", "--second", "mice/digits", "--by", "maco")
    code, out, _ = prisma(*OF, *units)
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith("logits:3: ") and "% of the data" in lines[0]
    assert lines[-1] == "Wrote 3 units to out: sheet.png, features.npz, README.md."
    assert "activation in the second model" in (tmp_path / "out" / "README.md").read_text()
    code, out, _ = prisma(*OF, *units, "--json")
    assert code == 0 and json.loads(out)["targets"] == ["logits:3", "blocks.0.mlp.post:0", "blocks.0.mlp.post:1"]


def test_what_cannot_be_done_is_one_sentence(prisma: Prisma) -> None:
    for unit, message in {
        "blocks.0.mlp.pots:3": "no site of this model is called 'blocks.0.mlp.pots'; the nearest are blocks.0.mlp.post",
        "blocks.0.mlp.post:9999": "expected a feature of blocks.0.mlp.post below",
        "3": "expected a unit as SITE:INDEX",
    }.items():
        code, _, err = prisma(*OF, "--unit", unit)
        assert code == 1 and message in one_sentence(err)
