"""Language models of transformers: causal tracing, rank-one and mass editing of facts, and what an edit does."""

from prisma.language.anatomy import Anatomy, anatomy
from prisma.language.average_trace import AverageTrace, average_trace
from prisma.language.causal_trace import CausalTrace, UnknownFactError, causal_trace
from prisma.language.edit_scores import EditScores, edit_scores, scores_of_edits
from prisma.language.facts import Fact, read_counterfact, read_known, read_zsre
from prisma.language.fine_tuning import fine_tuned_edit
from prisma.language.loading import load
from prisma.language.mass_edit import mass_edit
from prisma.language.rank_one_edit import key_covariance, key_covariances, rank_one_edit

__all__ = [
    "Anatomy",
    "AverageTrace",
    "CausalTrace",
    "EditScores",
    "Fact",
    "UnknownFactError",
    "anatomy",
    "average_trace",
    "causal_trace",
    "edit_scores",
    "fine_tuned_edit",
    "key_covariance",
    "key_covariances",
    "load",
    "mass_edit",
    "rank_one_edit",
    "read_counterfact",
    "read_known",
    "read_zsre",
    "scores_of_edits",
]
