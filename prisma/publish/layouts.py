"""How publishers name the checkpoints of a training run, and which steps a schedule lacks.

A label, a folder or the name of a repository is looked up in the table `LAYOUTS`; a new way of naming is a new row.
"""

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, takewhile

LONGEST = 200  # characters of a label that may name a step
MOST_MISSING = 200  # steps that are reported one by one, of each stage

LAYOUTS: tuple[tuple[str, str], ...] = (
    ("OLMo 2: stage1-step1000-tokens4B", r"(?P<stage>stage\d+(-ingredient\d+)?)-step(?P<step>\d+)(-tokens\d+[KMBT]?)?"),
    ("OLMo: step1000-tokens4B", r"step(?P<step>\d+)-tokens\d+[KMBT]?"),
    ("Pythia: step1000", r"step(?P<step>\d+)"),
    ("Prisma: step-001000", r"step-(?P<step>\d+)"),
    ("FineWeb: step-001000-2BT", r"step-(?P<step>\d+)-\d+BT"),
    ("RedPajama: 240b_tokens", r"(?P<step>\d+)b_tokens"),
    ("CRFM and Trainer: checkpoint-500", r"checkpoint-(?P<step>\d+)"),
    ("Amber: ckpt_000", r"ckpt_(?P<step>\d+)"),
    ("OpenCoder: pretrain_iter_0373000", r"(?P<stage>[A-Za-z]+)_iter_(?P<step>\d+)"),
    ("DeepSpeed: global_step500", r"global_?step[-_]?(?P<step>\d+)"),
    ("MultiBERTs: multiberts-seed_1-step_100k", r"((?P<stage>.+)[-_])?step_(?P<step>\d+)(?P<thousand>k)?"),
    (
        "others: run-a_epoch-3",
        r"((?P<stage>.+?)[-_.])?(global_?step|step|iter|iteration|epoch|ckpt|checkpoint)[-_.]?(?P<step>\d+)(?P<thousand>k)?",
    ),
)
"""An example of a way of naming -> the form of its names. The first row that fits a whole name counts."""
_FORMS = tuple((name, re.compile(form, re.IGNORECASE)) for name, form in LAYOUTS)
MOST_DISTANCES = 50  # that a gap is compared with
DIGITS = 18  # of a step, at most


@dataclass(frozen=True)
class StepName:
    """The step that a name states."""

    name: str
    stage: str  # the part of the training that counts its steps from zero again; "" if there is one only
    step: int
    layout: str  # the example of its row

    def of(self, step: int) -> str:
        """The name that another step has, as far as it is known: what follows the number is left out."""
        match = next(match for name, form in _FORMS if name == self.layout and (match := form.fullmatch(self.name)))
        begin, digits, end = match.start("step"), match["step"], match.end("step")
        thousands = "k" if match.groupdict().get("thousand") and step % 1000 == 0 else ""
        number = str(step // 1000 if thousands else step).zfill(len(digits) if digits[0] == "0" else 1)
        rest = self.name[end:] if self.name[end:].lower() == "b_tokens" else thousands
        return f"{self.name[:begin]}{number}{rest}"


def step_name(name: str) -> StepName | None:
    """The step that a label, a folder or a repository's name (without its owner) states; None if it states none."""
    if len(name) > LONGEST or not name.isascii():
        return None
    for layout, form in _FORMS:
        if (match := form.fullmatch(name)) and len(match["step"]) <= DIGITS:
            parts = match.groupdict()
            step = int(parts["step"]) * (1000 if parts.get("thousand") else 1)
            return StepName(name, parts.get("stage") or "", step, layout)
    return None


@dataclass(frozen=True)
class Gap:
    """Steps that a schedule lacks, by the spacing of the others."""

    after: int  # the step before the gap
    steps: tuple[int, ...]  # at most MOST_MISSING of them
    n: int  # how many are missing
    spacing: str  # in words


def gaps(steps: Iterable[int]) -> Iterator[Gap]:
    """Where steps are missing between others. Before the first one and after the last one, nothing can be known.

    Publishers save powers of two first (or not) and then equal distances, which grow at a few places and never shrink.
    So among the powers a missing exponent is a gap; and later, a distance that is a multiple of a smaller one that
    follows it and occurs twice, or, for the last distance, two or three times the one before.
    """
    found = sorted(set(steps))
    distances = Counter(b - a for a, b in pairwise(found))
    usual = max(distances, key=lambda distance: (distances[distance], distance), default=0)
    early = _powers(found, usual if distances[usual] > 2 else found[-1] + 1 if found else 0)
    for a, b in pairwise(early):
        if missing := [2**i for i in range(a.bit_length(), b.bit_length() - 1)]:
            yield Gap(a, tuple(missing), len(missing), "powers of two")
    later = [step for step in found if not early or step > early[-1]]
    yield from _in_equal_distances([early[-1] // usual * usual, *later] if early and usual else later, distances)


def _powers(steps: Sequence[int], end: int) -> list[int]:
    """The powers of two below `end` with which the steps begin, after 0; none if they are fewer than four."""
    early = list(takewhile(lambda step: step < end and step & (step - 1) == 0, (step for step in steps if step)))
    return early if len(early) >= 4 else []


def _in_equal_distances(steps: Sequence[int], distances: Mapping[int, int]) -> Iterator[Gap]:
    pairs = list(pairwise(steps))
    smaller = deque[int]()  # repeated distances that follow, each smaller than the next in this list
    found = list[Gap]()
    for i in reversed(range(len(pairs))):
        (a, b), distance = pairs[i], pairs[i][1] - pairs[i][0]
        while smaller and smaller[0] >= distance:
            smaller.popleft()
        candidates = list(islice(smaller, MOST_DISTANCES))
        if i and i == len(pairs) - 1 and distance in (2 * (before := a - pairs[i - 1][0]), 3 * before):
            candidates = [before] if distances[before] >= 2 else []
        if spacing := next((candidate for candidate in candidates if distance % candidate == 0), 0):
            missing = range(a + spacing, b, spacing)
            found.append(Gap(a, tuple(missing[:MOST_MISSING]), len(missing), f"every {spacing:,}"))
        if distances.get(distance, 0) >= 2:
            smaller.appendleft(distance)
    yield from reversed(found)
