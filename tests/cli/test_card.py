"""The card of a run from the command line, and a card that its data does not render to."""

from pathlib import Path

from prisma.publish import preview
from tests.cli.running import Prisma, one_sentence


def test_a_card_is_printed_and_checked(prisma: Prisma, run: Path) -> None:
    code, out, err = prisma("card", str(run), "--repo", "lab/tiny")
    assert (code, out, err) == (0, preview(run, "lab/tiny"), "")
    code, _, err = prisma("card", str(run), "--check")
    assert code == 1 and "expected a card to check" in one_sentence(err)
    (run / "README.md").write_text(out)
    code, said, _ = prisma("card", str(run), "--check")
    assert code == 0 and said == f"{run / 'README.md'} is what the data of {run} renders to.\n"
    (run / "other.md").write_text(out.replace("# tiny", "# large"))
    code, said, _ = prisma("card", str(run), "--check", "--card", str(run / "other.md"))
    assert code == 1 and "\n-# large\n+# tiny\n" in said
    (run / "curves/loss.png").unlink()
    code, _, err = prisma("card", str(run), "--check")
    assert code == 1 and "expected curves/loss.png in the run" in one_sentence(err)
