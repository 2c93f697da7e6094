"""Modularity by name: the graph of a model's weights, or of what its units do on the first images of a data set.

The graph of weights is that of any network, such as a CNN of torchvision.
"""

from collections.abc import Mapping

from prisma.analysis.modularity.data_graphs import activation_graph, gradient_graph
from prisma.analysis.modularity.graph import Graph
from prisma.analysis.modularity.modularity import Modularity, modularity
from prisma.analysis.modularity.weight_graph import weight_graph
from prisma.errors import PrismaError
from prisma.runs import sites_of_every_block
from prisma.study.entry import Analysis
from prisma.study.inputs import ShardInputs


def _graph(inputs: ShardInputs) -> Graph:
    """The same for all shards: images are the first of the data set."""
    kind, site = inputs.options["graph"], inputs.options["site"]
    if kind == "weights":
        return weight_graph(inputs.network, inputs.options["part"])
    if not len(inputs.pictures):
        raise PrismaError(f"expected --images DIR, which graph={kind} needs; found none")
    make = activation_graph if kind == "activations" else gradient_graph
    sites = sites_of_every_block(inputs.model, site)
    return make(inputs.model, inputs.reference, sites, **({} if inputs.batch is None else {"batch": inputs.batch}))


def _modularity(inputs: ShardInputs) -> Modularity:
    options = inputs.select_options("k", "null", "partition", "shuffle", "seed")
    return inputs.once("modularity", lambda: modularity(_graph(inputs), **options))


MODULARITY: Mapping[str, Analysis] = {
    "modularity": Analysis(
        "Whether the units of a model fall into communities, against graphs with shuffled weights.",
        {
            **{"graph": "weights", "part": None, "site": "mlp.post", "k": None, "null": 200},
            **{"partition": "spectral", "shuffle": None, "seed": 0},
        },
        Modularity,
        _modularity,
        of_weights=True,
        networks=True,
    ),
}
"""Name -> analysis."""
