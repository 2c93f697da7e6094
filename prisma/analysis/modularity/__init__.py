"""Modularity of networks: graphs of units, communities, how unusual they are, and what removing them does."""

from prisma.analysis.modularity.cluster_lesions import LesionSettings, cluster_lesions, cluster_lesions_network
from prisma.analysis.modularity.data_graphs import activation_graph, gradient_graph
from prisma.analysis.modularity.graph import Graph
from prisma.analysis.modularity.modularity import agreement, modularity
from prisma.analysis.modularity.weight_graph import weight_graph

__all__ = [
    "Graph",
    "LesionSettings",
    "activation_graph",
    "agreement",
    "cluster_lesions",
    "cluster_lesions_network",
    "gradient_graph",
    "modularity",
    "weight_graph",
]
