"""What tensors carry: sums, products, concatenations, and layers that read them."""

import numpy as np
import pytest

from prisma.analysis.modularity.followed import (
    Followed,
    Refused,
    by_channel,
    concatenated,
    one_to_one,
    read_by,
    scaled,
    together,
    width_of,
)
from prisma.errors import PrismaError


def test_sums_add_and_products_take_the_larger() -> None:
    layers = {"a": 2, "b": 2}
    a, b = Followed({"a": 1.0}, -1), Followed({"b": 3.0}, -1)
    twice = scaled(a, -2)
    assert together([a, twice], layers, summed=True).units == {"a": 3.0}
    assert together([a, twice], layers, summed=False).units == {"a": 2.0}
    both = together([a, by_channel(a, np.array([1.0, -4.0]), layers), b], layers, summed=True)
    assert np.array_equal(both.units["a"].toarray(), [[2, 0], [0, 5]]) and both.units["b"] == 3.0
    for other in (Followed({"b": 1.0}, -3), Followed({"b": 1.0}, -1, flat="first")):
        with pytest.raises(Refused, match="along different axes"):
            together([a, other], layers, summed=True)
    with pytest.raises(Refused, match="tensors of 2 and 3 channels"):
        together([a, Followed({"c": 1.0}, -1)], {**layers, "c": 3}, summed=True)


def test_one_channel_is_the_same_for_all() -> None:
    layers = {"a": 3, "gate": 1}
    found = together([Followed({"a": 1.0}, -3, 4), Followed({"gate": 2.0}, -3, 4)], layers, summed=False)
    assert np.array_equal(found.units["gate"].toarray(), [[2, 2, 2]]) and found.rank == 4


def test_concatenations_along_channels_and_along_places() -> None:
    layers = {"a": 2, "b": 1}
    a, b = Followed({"a": 1.0}, -3, 4), Followed({"b": 5.0}, -3, 4)
    joined = concatenated([b, a], 1, layers)
    assert np.array_equal(joined.units["a"].toarray(), [[0, 1, 0], [0, 0, 1]])
    assert np.array_equal(joined.units["b"].toarray(), [[5, 0, 0]]) and width_of(joined.units, layers) == 3
    assert concatenated([a, scaled(a, 3)], -1, layers).units == {"a": 3.0}
    with pytest.raises(Refused, match="not along one axis that is known"):
        concatenated([a, Followed({"x": 1.0})], 1, layers)


def test_a_layer_reads_every_place_of_a_channel_in_its_order() -> None:
    weight = np.arange(12.0).reshape(2, 6)
    for flat, expected in (("first", [[3, 21], [12, 30]]), ("last", [[6, 24], [9, 27]])):
        found = read_by(weight, Followed({"a": 1.0}, -1, 2, flat), "a", {"a": 2}, "reader")
        assert found.tolist() == expected
    with pytest.raises(PrismaError, match="expected reader to read 2 channels of a; found 6 inputs"):
        read_by(weight, Followed({"a": 1.0}, -1, 2), "a", {"a": 2}, "reader")
    layers: dict[str, int] = {}
    assert read_by(weight, Followed({"x": 2.0}), "x", layers, "reader").shape == (6, 2) and layers == {"x": 6}
    assert one_to_one(2, 3, 1).toarray().tolist() == [[0, 1, 0], [0, 0, 1]]
