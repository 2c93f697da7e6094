"""Modularity by name: of weights, and of the first images whatever the shard."""

from pathlib import Path

import pytest
import torch

from prisma.analysis.modularity import activation_graph, gradient_graph, modularity, weight_graph
from prisma.data.pictures import no_pictures
from prisma.errors import PrismaError
from prisma.study.catalog import options_of
from prisma.study.inputs import ShardInputs
from prisma.study.modularity import MODULARITY
from prisma.study.shards import DatasetAnalysis, run_dataset_analysis
from tests.study.study import job_of
from tests.variants import model_of

RUN = MODULARITY["modularity"].function


def test_options_reach_the_analysis_of_weights_which_needs_no_images(tmp_path: Path) -> None:
    given = {"part": "stream", "k": "2", "null": "4", "seed": "3", "shuffle": "nonzero"}
    job = DatasetAnalysis(
        "modularity", model_of("base"), no_pictures(), options_of("modularity", given), tmp_path / "out"
    )
    summary = run_dataset_analysis(job, progress=False)
    expected = modularity(weight_graph(job.model, "stream"), 2, 4, shuffle="nonzero", seed=3)
    assert summary["arrays"]["score"]["values"] == pytest.approx([expected.q, expected.n_cut])
    assert summary["files"] == ["result.npz", "plot.png"]


@pytest.mark.parametrize(("kind", "make"), [("activations", activation_graph), ("gradients", gradient_graph)])
def test_graphs_of_images_are_those_of_the_first_images(kind: str, make: object, tmp_path: Path) -> None:
    job = job_of("modularity", tmp_path, graph=kind, k="2", null="2")
    inputs = ShardInputs(job.model, job.pictures, range(2, 4), job.options)
    names = ["blocks.0.mlp.post", "blocks.1.mlp.post"]
    expected = modularity(make(job.model, inputs.reference, names), 2, 2)  # type: ignore[operator]
    found = RUN(inputs)
    assert torch.equal(found.arrays["labels"], expected.labels)
    assert found.metadata["graph"] == kind and torch.equal(found.arrays["score"], expected.score)


def test_a_graph_of_images_without_images_is_one_sentence() -> None:
    inputs = ShardInputs(model_of("base"), no_pictures(), range(0), options_of("modularity", {"graph": "gradients"}))
    with pytest.raises(PrismaError, match="expected --images DIR, which graph=gradients needs; found none"):
        RUN(inputs)
