"""Scores of generated texts: fluency, which falls when a model repeats itself, and consistency with other texts."""

import math
import re
from collections import Counter
from collections.abc import Sequence

WEIGHTS = ((2, 2 / 3), (3, 4 / 3))
"""(words of a gram, weight), as in ROME."""


def words_of(text: str) -> list[str]:
    """Words and numbers, and marks one by one."""
    return re.findall(r"\w+|[^\w\s]", text)


def fluency(text: str) -> float:
    """The entropy of a text's pairs and triples of words, in bits: a text that repeats itself has little.

    The mean of 2/3 of that of pairs and 4/3 of that of triples (Zhang et al. 1809.05972, as ROME weighs them;
    its tables show 100 times this). NaN for fewer than three words.
    """
    words = words_of(text)
    if len(words) < 3:
        return math.nan
    return sum(weight * _entropy(words, n) for n, weight in WEIGHTS) / len(WEIGHTS)


def _entropy(words: Sequence[str], n: int) -> float:
    counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    total = counts.total()
    return -sum(count / total * math.log2(count / total) for count in counts.values())


class TfIdf:
    """Weights of words by how few of some texts have them: smooth inverse document frequencies, as scikit-learn's.

    Words that none of the texts has weigh most, so that what a text says beside its references counts against it.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.n = len(texts)
        self.having = Counter(word for text in texts for word in set(self._words(text)))

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> float:
        """Cosine of the tf-idf vectors of some texts, joined, and of others: the consistency of ROME.

        NaN where one of them has no word.
        """
        a, b = (self._vector(" ".join(some)) for some in (texts, others))
        lengths = [math.sqrt(sum(x * x for x in vector.values())) for vector in (a, b)]
        if not all(lengths):
            return math.nan
        return sum(x * b[word] for word, x in a.items() if word in b) / math.prod(lengths)

    def _vector(self, text: str) -> dict[str, float]:
        counts = Counter(self._words(text))
        return {word: count * (math.log((1 + self.n) / (1 + self.having[word])) + 1) for word, count in counts.items()}

    @staticmethod
    def _words(text: str) -> list[str]:
        return re.findall(r"\b\w\w+\b", text.lower())
