"""Every sentence of a mechanism card, in one table. What is put in comes from measurements, and from nothing else.

`{n[i]}` is a number of the finding, `{s[i]}` a name, `{worse}`, `{better}` and `{noun}` are those of the measure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from prisma.errors import PrismaError, quoted
from prisma.mechanisms.findings import Finding, Mechanism, Row, rounded
from prisma.mechanisms.measures import MEASURES, Measure

T = TypeVar("T")
ATTENDS: Mapping[str, str] = {
    "class_token": "the class token",
    "register": "registers",
    "sink": "one token above all others",
    "corner": "the corners",
    "edge": "the patches along the edge",
    "row": "the other patches of its row",
    "column": "the other patches of its column",
    "neighbour": "the patches around its own",
    "previous_patch": "the previous patch",
    "next_patch": "the next patch",
    "place": "the same place in other frames",
    "itself": "its own token",
    "object": "the object",
    "induction": "patches with the same content",
}
"""Score of a head -> what it attends to; the names are those of `head_scores`."""

I0 = "{n[0]} ({n[1]} to {n[2]})"
_HEAD = f"Head {{s[0]}} attends to {{attends}}: {I0} of its attention, {{n[3]}} by chance; "
_ABLATED = "{n[4]} ({n[5]} to {n[6]})"

GOALS: Mapping[str, str] = {
    "classification": "one class for each image",
    "several": "several answers for each image",
    "regression": "numbers",
    "reconstruction": "giving back the pixels of each patch",
    "masked": "the pixels of patches that it does not see",
    "varying": "a goal that changes",
}
"""Objective -> what a mouse was trained for, in words."""

SENTENCES: Mapping[str, str] = {
    "refused": "This step could not be computed: an analysis refused this mouse or these images.",
    # answers
    "accuracy": f"It answers {{n[3]}} of {{n[4]}} test images right, an accuracy of {I0}; always the most frequent "
    "class would give {n[5]}.",
    "loss": f"Its loss on {{n[3]}} test images is {I0}.",
    "no_measure": "This step does not apply: the mouse was trained for {goal}, and how well it does that is no number "
    "of its output for one image.",
    # heads
    "heads": "{n[0]} of {n[1]} heads are needed, each ablated alone.",
    "head_needed": f"{_HEAD}ablating it {{worse}} by {_ABLATED}.",
    "head_not_needed": f"{_HEAD}not needed: ablating it {{worse}} by {_ABLATED}, an interval with 0 in it.",
    "head_against": f"{_HEAD}the mouse is better without it: ablating it {{better}} by {_ABLATED}.",
    "head_unused": f"{_HEAD}not needed: ablating it changes the {{noun}} of none of {{n[4]}} images, so, at 95 % "
    "confidence, of a share of at most {n[5]} of such images.",
    "unnamed_needed": f"Head {{s[0]}} is needed, and no score says what it attends to: ablating it {{worse}} by {I0}.",
    "unnamed_against": f"Head {{s[0]}}, of which no score says what it attends to, works against the answer: ablating "
    f"it {{better}} by {I0}.",
    "no_heads": "This step does not apply: the mouse has no layers, and so no heads.",
    # lens
    "stages": f"The mouse's own readout, applied to the embedding, gives {{an}} {{noun}} of {I0}; after the last "
    "block, {n[3]} ({n[4]} to {n[5]}).",
    "largest_step": "It changes most in block {n[0]}: from {n[1]} ({n[2]} to {n[3]}) before it to {n[4]} ({n[5]} to "
    "{n[6]}) after it.",
    "part_needed": f"Of what the blocks write, {{s[0]}} is needed most: replacing it by its mean {{worse}} by {I0}.",
    "part_none": f"No attention and no MLP is needed on its own: replacing {{s[0]}}, the one with the largest effect, "
    f"by its mean {{worse}} by {I0}, an interval with 0 in it.",
    "part_against": f"No attention and no MLP is needed on its own, and the mouse is better without each of them: "
    f"replacing {{s[0]}} by its mean {{better}} by {I0}, the smallest of these effects.",
    # patching
    "no_pairs_of_classes": "This step does not apply: it needs pairs of images of two classes, and the mouse was "
    "trained for {goal}, so that its images have no one class.",
    "no_pairs_right": "This step does not apply: it needs pairs of images of two classes that are both answered "
    "rightly, and of {n[1]} images only {n[0]} are, too few for such pairs.",
    "no_pairs_of_two": "This step does not apply: it needs pairs of images of two classes that are both answered "
    "rightly, and of {n[1]} images {n[0]} are, all of one class.",
    "pairs_by_factors": "{n[0]} pairs of test images: the other image of a pair is of another class, is answered "
    "rightly too, and differs in as few factors as can be found, {n[1]} on average ({n[2]} of {n[3]} images that were "
    "looked at are answered rightly).",
    "pairs_at_random": "{n[0]} pairs of test images: the other image of a pair is of another class, is answered "
    "rightly too, and is drawn at random, because the task has no factors ({n[1]} of {n[2]} images that were looked at "
    "are answered rightly).",
    "carries": f"{{Part}} carries {I0} of the difference between two images of different classes.",
    "carriers": "{n[0]} of {n[1]} parts carry a share whose interval is above 0.",
    # circuit
    "circuit": "A circuit of {n[0]} of {n[1]} edges gives {n[2]} ({n[3]} to {n[4]}) of the difference between two "
    "images of different classes; {n[7]} random circuits with as many edges give {n[5]} to {n[6]}.",
    "completeness": f"Without these edges, {I0} of the difference is lost.",
    "edge": f"The edge from {{s[0]}} to {{s[1]}} carries {I0} of the difference when it alone is replaced; without it "
    "the circuit gives {n[3]} less.",
    "induction": "{s[0]} attends to the previous patch, and {s[1]} reads it: the key of this head holds what came "
    f"before, as in an induction head. The edge carries {I0} of the difference when it alone is replaced; without it "
    "the circuit gives {n[3]} less.",
    "too_many_edges": "With {n[0]} edges, more than {n[1]}, no edges are removed one by one; circuits of fixed sizes "
    "follow.",
    "size": "The best {n[0]} of {n[1]} edges give {n[2]} ({n[3]} to {n[4]}) of the difference between two images of "
    "different classes; {n[7]} random circuits with as many edges give {n[5]} to {n[6]}.",
    "cmd": f"Over circuits of ten sizes, the distance from the mouse's own answer (CMD, 0 is best) is {I0}; for "
    "{n[5]} random rankings of edges it is {n[3]} to {n[4]}.",
    "cpr": f"The area under the share that is given (CPR, larger is better) is {I0}; for {{n[5]}} random rankings of "
    "edges it is {n[3]} to {n[4]}.",
    "circuit_pairs": "Edges are chosen on {n[0]} pairs of training images, and all figures are of {n[1]} pairs of test "
    "images.",
    # dynamics
    "no_checkpoints": "This step does not apply: only the final weights are at hand, and no checkpoints of the "
    "training.",
    "few_checkpoints": "This step does not apply: it needs two checkpoints or more, and there is {n[0]}.",
    "few_finite_checkpoints": "This step does not apply: it needs two checkpoints with finite answers, and {n[0]} of "
    "{n[1]} have them.",
    "lost_checkpoints": "{n[0]} of {n[1]} checkpoints give answers that are not finite, the first at step {n[2]}, and "
    "are left out.",
    "checkpoints": "{n[0]} checkpoints, from step {n[1]} to step {n[2]}, on {n[3]} test images each.",
    "change": "{Subject} goes from {n[0]} to {n[1]}; it changes most at step {n[2]} ({n[3]} to {n[4]}), by {n[5]} "
    "({n[6]} to {n[7]}).",
    "no_change": "{Subject} goes from {n[0]} to {n[1]}, and has no one step of change: the jump at the best one is "
    "{n[2]} ({n[3]} to {n[4]}).",
}
"""What a finding `says` -> the sentence."""

VERDICTS: Mapping[str, str] = {"needed": "needed", "not_needed": "not needed", "against": "works against"}
WORDS: Mapping[str, str] = {
    "": "",
    "no_step": "no one step",
    **VERDICTS,
    **{f"{kind}_{name}": f"{ATTENDS[name]}: {words}" for name in ATTENDS for kind, words in VERDICTS.items()},
}
"""What the last column of a row says."""


@dataclass(frozen=True)
class Columns:
    """How a table is headed."""

    name: str  # the first column
    cells: tuple[str, ...]
    words: str = ""  # the last column; none if empty
    rest: str = ""  # what each further cell is, in a table with as many as the model has heads


COLUMNS: Mapping[str, Columns] = {
    "heads": Columns("head", ("share of attention", "by chance", "{worse} by"), "in words"),
    "stages": Columns("readout of the residual stream", ("{noun}",)),
    "parts": Columns("replaced by its mean", ("{worse} by",), "verdict"),
    "patching": Columns("part", ("share of the difference",)),
    "sizes": Columns("share of edges", ("edges", "given", "by random circuits: mean (least to most)")),
    "edges": Columns("edge", ("lost without it", "score")),
    "changes": Columns("number", ("first", "last", "changes most at step", "by"), "remark"),
}
"""Tables that the page shows, by name."""


def sentence(finding: Finding, measure: str) -> str:
    """A finding in words.

    Raises:
        PrismaError: there is no such sentence or measure, or the finding lacks what the sentence says.
    """
    if finding.says not in SENTENCES:
        raise PrismaError(f"expected a sentence of this version of Prisma; found {quoted(finding.says)}")
    of, s = measure_of(measure), finding.names
    fields = {"n": [shown_number(x) for x in finding.numbers], "s": s, "worse": of.worse, "better": of.better}
    fields |= {"noun": of.noun, "an": "an" if of.noun[0] in "aeiou" else "a"}
    if s and finding.says.startswith("head_"):
        fields["attends"] = _known(ATTENDS, s[-1])
    if finding.says in ("no_measure", "no_pairs_of_classes"):
        fields["goal"] = _known(GOALS, s[0] if s else "")
    if s:
        fields |= {"Part": _part(s[0]), "Subject": _subject(s[0], of)}
    try:
        return SENTENCES[finding.says].format(**fields)
    except (IndexError, KeyError):
        raise PrismaError(
            f"expected all that the sentence {finding.says!r} says; found {len(finding.numbers)} numbers and "
            f"{len(s)} names"
        ) from None


def is_reason(finding: Finding) -> bool:
    """Whether a finding says why a step says nothing."""
    return SENTENCES.get(finding.says, "").startswith("This step")


def measure_of(name: str) -> Measure:
    """Raises PrismaError if there is no such measure."""
    return _known(MEASURES, name)


def shown_number(x: float) -> str:
    """A number as the page prints it. Raises PrismaError unless it is rounded as `findings.rounded` does."""
    if x != rounded(x):
        raise PrismaError(f"expected numbers of three digits in a mechanism card; found {x!r}")
    return f"{int(x):,}" if x == int(x) else f"{x:g}"


def shown_cell(cell: tuple[float, ...]) -> str:
    """A cell of a table: nothing, a number, or a number with its interval. Raises PrismaError for anything else."""
    if len(cell) not in (0, 1, 3):
        raise PrismaError(f"expected a number, perhaps with its interval, in a cell; found {len(cell)} numbers")
    shown = [shown_number(x) for x in cell]
    return "" if not cell else shown[0] if len(cell) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def row_words(row: Row) -> str:
    """What the last column says. Raises PrismaError if it is not in the table."""
    return _known(WORDS, row.words)


def sentences(card: Mechanism, step: str, *, in_card: bool = False) -> list[str]:
    """The sentences of a step; with `in_card` only those that the model card has."""
    found = card.step(step).findings
    return [sentence(one, card.measure) for one in found if one.in_card or not in_card]


def _part(name: str) -> str:
    """`mlp 0` -> `MLP 0`, `head 0.1` -> `Head 0.1`."""
    return name.replace("mlp", "MLP") if name.startswith("mlp") else name[0].upper() + name[1:]


def _subject(name: str, of: Measure) -> str:
    """Of which number a change is told."""
    return f"The {of.noun}" if name == of.noun else f"How much ablating {name} {of.worse}"


def _known(table: Mapping[str, T], name: str) -> T:
    if name not in table:
        raise PrismaError(f"expected one of {', '.join(filter(None, table))}; found {quoted(name)}")
    return table[name]
