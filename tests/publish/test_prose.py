from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.publish import preview
from prisma.publish.prose import BEGIN, END, own_prose, prose_of, with_prose

EMPTY = f"# a\n\n{BEGIN}\n{END}\n\n## b\n"
WORDS = "A *person* wrote this.\n\n- and [this](x.png)"


def test_words_go_in_and_come_out() -> None:
    written = with_prose(EMPTY, WORDS)
    assert written == f"# a\n\n{BEGIN}\n\n{WORDS}\n\n{END}\n\n## b\n"
    assert prose_of(written) == WORDS and with_prose(written, WORDS) == written
    assert with_prose(written, "") == EMPTY and prose_of(EMPTY) == prose_of("# a") == ""
    assert prose_of(written.replace("\n", "\r\n")) == WORDS.replace("\n", "\r\n")
    assert prose_of(with_prose(EMPTY, "\\1 \\g<0>")) == "\\1 \\g<0>"


def test_only_whole_lines_are_marks() -> None:
    assert prose_of(f"a `{BEGIN}` in a sentence\n") == ""


@pytest.mark.parametrize("card", [f"{BEGIN}\nx\n", f"{END}\n", f"{END}\n{BEGIN}\n"])
def test_half_a_pair_is_an_error(card: str) -> None:
    with pytest.raises(PrismaError, match=r"expected a line <!-- prose --> in the card, and a line"):
        prose_of(card)


def test_the_words_beside_a_run_are_published(run: Path) -> None:
    plain = preview(run, "lab/tiny")
    assert own_prose(run) == ""
    (run / "README.md").write_text(with_prose(plain, WORDS))
    assert preview(run, "lab/tiny") == with_prose(plain, WORDS) != plain
