"""Tables of answers."""

import pytest
import torch

from prisma import PrismaError
from prisma.view.figures.answers import MOST_ROWS, draw_answers

LOGITS = torch.tensor([[[0.0, 2.0], [3.0, 0.0], [0.0, 0.5]]])  # [row, stage, class]


def test_a_cell_has_the_first_class_and_its_probability() -> None:
    panel = draw_answers(LOGITS, ["image 7"], classes=["cat", "a very long name of a dog"], title="table").axes[0]
    assert [text.get_text() for text in panel.texts] == ["a very long nam…", "cat", "a very long nam…"]
    expected = LOGITS.softmax(-1).max(-1).values
    torch.testing.assert_close(torch.tensor(panel.images[0].get_array().tolist()), expected)
    assert [label.get_text() for label in panel.get_yticklabels()] == ["image 7"]
    assert [text.get_text() for text in draw_answers(LOGITS, ["x"]).axes[0].texts] == ["1", "0", "1"]


def test_what_it_refuses() -> None:
    with pytest.raises(PrismaError, match=r"a name for each row; found \[1, 3, 2\] and 2"):
        draw_answers(LOGITS, ["a", "b"])
    with pytest.raises(PrismaError, match=r"found \[3, 2\] and 3"):
        draw_answers(LOGITS[0], ["a", "b", "c"])
    with pytest.raises(PrismaError, match="expected 2 names of classes; found 3"):
        draw_answers(LOGITS, ["a"], classes=["a", "b", "c"])
    with pytest.raises(PrismaError, match=f"at most {MOST_ROWS} rows"):
        draw_answers(LOGITS.expand(30, -1, -1), [""] * 30)
