"""The batch of a step from the command line: of a run folder, and of a published mouse."""

import json
from pathlib import Path

from prisma.checkpoint import read_tensors
from tests.cli.running import Prisma, one_sentence
from tests.conftest import REPO


def test_a_run_and_its_publication_give_the_same_batch(prisma: Prisma, run: Path, hub: Path) -> None:
    code, out, err = prisma("batch", str(run), "--step", "4", "--out", "a", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["step"] == 4 and len(found["images"]) == 32 and Path(found["picture"]).is_file()
    code, out, err = prisma("batch", REPO, "--step", "4", "--out", "b", "--hub", str(hub))
    assert code == 0 and out.startswith("The 32 images of step 4 are in b/batch-000004.png and"), err
    one, other = (read_tensors(Path(folder) / "batch-000004.safetensors") for folder in ("a", "b"))
    assert one[1] == other[1] and all((one[0][name] == other[0][name]).all() for name in one[0])
    code, _, err = prisma("batch", str(run), "--step", "7")
    assert code == 1 and "expected a step from 0 to 6" in one_sentence(err)
