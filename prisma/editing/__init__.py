"""Editing weights: the least change after which chosen keys have chosen values, as a value that can be undone."""

from prisma.editing.competitors import class_row, fine_tuning, head_edit, steering
from prisma.editing.edit_class import METHODS, edit_class
from prisma.editing.folder import Edited, is_edited, read_edited, write_edited
from prisma.editing.keys import covariances
from prisma.editing.latents import Swap, latent_swap
from prisma.editing.measuring import EditMeasures, Share, measure_edit, measure_edits
from prisma.editing.mlp_edit import KeySettings, Search, mean_key, multi_key
from prisma.editing.rank_one import Covariance, SecondMoment, least_change
from prisma.editing.request import Request
from prisma.editing.tracing import layer_by_tracing
from prisma.editing.value import Optimum, optimal_value
from prisma.editing.weight_edit import Applied, LowRank, WeightEdit, source_of

__all__ = [
    "METHODS",
    "Applied",
    "Covariance",
    "EditMeasures",
    "Edited",
    "KeySettings",
    "LowRank",
    "Optimum",
    "Request",
    "Search",
    "SecondMoment",
    "Share",
    "Swap",
    "WeightEdit",
    "class_row",
    "covariances",
    "edit_class",
    "fine_tuning",
    "head_edit",
    "is_edited",
    "latent_swap",
    "layer_by_tracing",
    "least_change",
    "mean_key",
    "measure_edit",
    "measure_edits",
    "multi_key",
    "optimal_value",
    "read_edited",
    "source_of",
    "steering",
    "write_edited",
]
