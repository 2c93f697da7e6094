"""Fluency by hand, and similarity against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from prisma.language.text_scores import TfIdf, fluency


def test_fluency_is_the_weighted_entropy_of_grams() -> None:
    assert fluency("a b a b a b") == pytest.approx((2 / 3 * _bits([3, 2]) + 4 / 3 * _bits([2, 2])) / 2)
    assert fluency("one two three four five") == pytest.approx((2 / 3 * 2 + 4 / 3 * math.log2(3)) / 2)
    assert fluency("no no no no no no") == 0.0
    assert math.isnan(fluency("too short"))


def _bits(counts: list[int]) -> float:
    p = np.array(counts) / sum(counts)
    return float(-(p * np.log2(p)).sum())


def test_similarity_is_that_of_scikit_learn() -> None:
    texts = ["Ada was born in Rome.", "Ben plays the drums in Rome", "the home of Cleo is Oslo"]
    said, others = ["Ada plays the drums", "and the harp"], texts[:2]
    every = TfidfVectorizer().fit([*texts, *said]).vocabulary_  # words that no text has weigh most
    vectors = TfidfVectorizer(vocabulary=every).fit(texts).transform([" ".join(said), " ".join(others)]).toarray()
    assert TfIdf(texts).similarity(said, others) == pytest.approx(vectors[0] @ vectors[1])
    assert math.isnan(TfIdf(texts).similarity([], others)) and math.isnan(TfIdf([]).similarity(said, []))
