"""The stretches that the loop works in."""

from hypothesis import given
from hypothesis import strategies as st

from prisma.run_folder import checkpoint_steps
from prisma.train.fit import _stretches


@given(st.integers(1, 700), st.integers(1, 300), st.integers(1, 200), st.data())
def test_stretches_cover_every_step_and_begin_at_checkpoints(
    last: int, every: int, at_once: int, data: st.DataObject
) -> None:
    first, kept = data.draw(st.integers(0, last)), frozenset(checkpoint_steps(last, every))
    found = list(_stretches(first, last, kept, at_once))
    assert [step for start, stop in found for step in range(start, stop)] == list(range(first, last))
    assert found[-1] == (last, last)
    for start, stop in found[:-1]:
        assert 0 < stop - start <= at_once
        assert not kept & set(range(start + 1, stop))


def test_a_step_at_a_time() -> None:
    assert list(_stretches(3, 5, frozenset({4, 5}), 1)) == [(3, 4), (4, 5), (5, 5)]
