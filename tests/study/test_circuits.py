"""The options of the estimates and of the evaluation of circuits reach them, and edges are scored on other images."""

from pathlib import Path

import torch

from prisma import Logit
from prisma.analysis.circuits.atp_star import atp_star
from prisma.analysis.circuits.circuit_evaluation import CircuitEvaluation, circuit_evaluation, edge_scores
from prisma.analysis.circuits.relevance_patching import relevance_patching
from prisma.analysis.patching.corruptions import mean_image
from prisma.study.circuits import CIRCUITS, SCORED
from prisma.study.inputs import ShardInputs
from prisma.study.merging import merge_results
from tests.study.study import job_of


def inputs_of(name: str, folder: Path, rows: range, **options: str) -> ShardInputs:
    job = job_of(name, folder, **options)
    return ShardInputs(job.model, job.pictures, rows, job.options)


def test_options_reach_the_estimates(tmp_path: Path) -> None:
    inputs = inputs_of("atp_star", tmp_path, range(3), grad_drop="false", into="corrupt")
    found = CIRCUITS["atp_star"].function(inputs).arrays["heads"]
    case = inputs.model, inputs.images, inputs.corrupt, inputs.metric
    torch.testing.assert_close(found, atp_star(*case, grad_drop=False, into="corrupt").heads)
    inputs = inputs_of("relevance_patching", tmp_path, range(3), rules="attn-lrp")
    case = inputs.model, inputs.images, inputs.corrupt, inputs.metric
    found = CIRCUITS["relevance_patching"].function(inputs).arrays["heads"]
    torch.testing.assert_close(found, relevance_patching(*case, rules="attn_lrp").heads)


def test_shards_measure_the_same_circuits(tmp_path: Path) -> None:
    """The scores are of training images, whichever shard comes first; merged shards are one call."""
    given = {"draws": "1", "corrupt": "mean", "metric": "logit"}
    shards = [inputs_of("circuit_evaluation", tmp_path, rows, **given) for rows in (range(3), range(3, 5))]
    parts = [CIRCUITS["circuit_evaluation"].function(inputs) for inputs in reversed(shards)]
    merged = merge_results([x for x in reversed(parts) if isinstance(x, CircuitEvaluation)])
    whole = inputs_of("circuit_evaluation", tmp_path, range(5), **given)
    training = whole.training(SCORED)[0]
    other = mean_image(training, reference=training)
    scores = edge_scores(whole.model, training, other, Logit(whole.model(training).argmax(-1)))
    expected = circuit_evaluation(whole.model, whole.images, whole.corrupt, whole.metric, scores, draws=1)
    torch.testing.assert_close(merged.size_values, expected.size_values)
    torch.testing.assert_close(merged.random_values, expected.random_values)
    assert merged.metadata["pairs"] == 5 and abs(merged.cmd - expected.cmd) < 1e-9
