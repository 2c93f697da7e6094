"""The end of a run: its final weights, curves and results."""

from collections.abc import Mapping, Sequence
from typing import Any

from prisma.files import to_json, write_json
from prisma.ledger import write_hashes
from prisma.run_folder import CURVES, DYNAMICS, METRICS, RECIPE, RESULTS, read_metrics, read_recipe
from prisma.train.curves import draw_curves
from prisma.train.early_stop import EarlyStop
from prisma.train.fit import MEASURED
from prisma.train.provenance import seeds
from prisma.train.run import Run
from prisma.train.stopping import Stopping


def finish(run: Run, command: str, stopping: Stopping) -> dict[str, Any]:
    """Write the final weights, the curves, and last `results.json`, whose presence means that the run is finished.

    The state of the last step is saved already: a process that is told to stop can do so before the results.
    """
    run.expect_alone()
    metrics = read_metrics(run.out / METRICS)
    steps, stopped = metrics[-1]["step"], _stopped(run, metrics)
    run.write_model(run.out, steps)
    objective = run.recipe.objective
    draw_curves(metrics, run.out / CURVES, run.recipe.name, objective)
    results = {
        "recipe": run.recipe.name,
        "run": run.id,
        "seeds": seeds(run.recipe),
        "command": command,
        "steps": steps,
        **stopped,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "results": [
            {"name": name.replace("_", " "), "value": metrics[-1][name], "split": split, "n": len(labels)}
            for _, start in MEASURED[: 1 + (run.mean is not None)]
            for kind in (*objective.measures[1:], "loss")
            for split, (_, labels) in run.inputs.items()
            for name in [f"{start}{split}_{kind}"]
        ],
        "curves": [*objective.measures[:2], DYNAMICS],
        **run.clock.stated,
    }
    run.expect_alone()
    if stopped:
        write_json(run.out / RECIPE, {**read_recipe(run.out), **stopped})
    write_hashes(run.out, to_json(results))
    stopping.deliver()
    run.expect_alone()
    write_json(run.out / RESULTS, results)
    run.clock.remove()
    return results


def _stopped(run: Run, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"stopped": {"step", "why"}} of a run that ended before the last step of its recipe; else nothing."""
    early_stop, step = EarlyStop(run.recipe.training, metrics[:-1]), metrics[-1]["step"]
    why = early_stop.ends(metrics[-1])
    return {} if step == run.recipe.training.steps else {"stopped": {"step": step, "why": why}}
