"""Whether it pays to run the checkpoints of a training as one, with stacked weights, in processor time of one thread.

    python -m benchmarks.stacking [--rounds 5] [--json FILE]

The time of `measure_checkpoints` with stacked weights over that of its loop, for a metric of the answers of shipped
mice at 40 checkpoints; and what share of `prisma analyze --revisions all` the analyses themselves are, which is all
that stacking could make less. Checkpoints are the mouse's weights with a little noise: what they are changes no speed.
"""

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

import prisma
from benchmarks.timing import interleave
from prisma.checkpoint import read_checkpoint, write_checkpoint
from prisma.data.pictures import pictures
from prisma.loaded import Loaded
from prisma.study import shards
from prisma.study.catalog import options_of
from prisma.study.checkpoints import measure_checkpoints
from prisma.study.together import results_together
from prisma.vit import ViT

MICE = ("circle", "induction", "digits", "sprites")
IMAGES, CHECKPOINTS = (1, 4, 8, 64), 40
ANALYSES = ("head_scores", "logit_lens", "activation_patching")
FEW = 4  # images of an analysis: with more there is nothing to be gained


def checkpoints_of(loaded: Loaded, count: int) -> list[ViT]:
    """So many models near this one."""
    generator, models = torch.Generator().manual_seed(0), []
    for _ in range(count):
        models.append(copy.deepcopy(loaded.model))
        for x in models[-1].parameters():
            x.data += 0.01 * torch.randn(x.shape, generator=generator)
    return models


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def stacking(name: str, rounds: int) -> dict[str, Any]:
    """Images -> the time of a stack over that of a loop, the median of rounds."""
    loaded = prisma.load(f"mice/{name}")
    models, ratios = checkpoints_of(loaded, CHECKPOINTS), dict[str, float]()
    for count in IMAGES:
        images = prisma.data.task(name).inputs("test", count)[0]
        ways = {
            way: partial(measure_checkpoints, models, images, prisma.Logit(0), stacked=way == "stack")
            for way in ("stack", "loop")
        }
        found = interleave(ways, rounds, time.process_time)
        ratios[str(count)] = round(median(a / b for a, b in zip(found["stack"], found["loop"], strict=True)), 2)
    return {"mouse": name, "ratios": ratios}


def shares(name: str, analysis: str, rounds: int) -> dict[str, Any]:
    """What share of the time of a checkpoint the analysis is: with its files alone, and with its plot as well."""
    loaded, spent = prisma.load(f"mice/{name}"), list[float]()

    def timed(inputs: Any) -> Any:
        result: Any = None

        def work() -> None:
            nonlocal result
            result = results_together(inputs)

        spent.append(seconds(work))
        return result

    def go(drawn: bool) -> float:
        """The analyses' share of all."""
        spent.clear()
        with TemporaryDirectory() as out:

            def work() -> None:
                for i, folder in enumerate(folders):
                    model = read_checkpoint(folder).model
                    job = shards.DatasetAnalysis(analysis, model, chosen, options, Path(out) / str(i), drawn=drawn)
                    shards.run_dataset_analysis(job, progress=False)

            whole = seconds(work)
        return sum(spent) / whole

    chosen = pictures(name, loaded.transform, loaded.input_shape, FEW, loaded.labels)
    options = options_of(analysis, {})
    with TemporaryDirectory() as here, patch.object(shards, "results_together", timed):
        folders = [Path(here) / str(i) for i in range(8)]
        for folder, model in zip(folders, checkpoints_of(loaded, len(folders)), strict=True):
            write_checkpoint(folder, model, labels=loaded.labels)
        go(drawn=True)
        found = {key: [go(drawn) for _ in range(rounds)] for key, drawn in (("share", False), ("with plots", True))}
    return {"mouse": name, "analysis": analysis, **{key: round(median(x), 3) for key, x in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        "stacking": [stacking(name, args.rounds) for name in MICE],
        "shares": [shares("digits", analysis, args.rounds) for analysis in ANALYSES],
    }
    for row in (*found["stacking"], *found["shares"]):
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    if args.json:
        where = {"torch": torch.__version__, "device": platform.machine(), "rounds": args.rounds}
        args.json.write_text(json.dumps({**where, "checkpoints": CHECKPOINTS, "few": FEW, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
