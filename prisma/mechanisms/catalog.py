"""The stated list of a mechanism card: each step with the analyses that it runs, and how to read what it says."""

from collections.abc import Callable
from dataclasses import dataclass

from prisma.mechanisms.findings import StepFindings
from prisma.mechanisms.given import Given
from prisma.mechanisms.image_steps import answers, heads, lens
from prisma.mechanisms.over_training import dynamics
from prisma.mechanisms.pair_steps import circuit, patching


@dataclass(frozen=True)
class Step:
    """One step: its name in the JSON, its heading, and what a reader has to know."""

    name: str
    title: str
    analyses: tuple[str, ...]  # public names of Prisma
    reading: str  # how the numbers are made and how to read them
    run: Callable[[Given], StepFindings]


STEPS: tuple[Step, ...] = (
    Step(
        "answers",
        "How often it is right",
        (),
        "The interval is of 95 %, over images: Wilson's for a share, a bootstrap for a loss.",
        answers,
    ),
    Step(
        "heads",
        "Heads: what they attend to, and whether they are needed",
        ("head_scores", "ablation"),
        "A head attends to something if its share of attention on it is at least 0.25 and at least twice that of "
        "uniform "
        "attention; of several, the one that is most above it. That describes the head. Whether it matters is another "
        "question: it is ablated, alone, by giving it its mean over these images at each token. A head that is not "
        "needed alone may be needed where another one is missing too, and of twenty intervals of 95 % one misses by "
        "chance.",
        heads,
    ),
    Step(
        "lens",
        "Lens: when the answer is readable, and which part is needed",
        ("logit_lens", "ablation"),
        "What can be read early need not be used, and what is unreadable to the last readout may be there; so what "
        "each "
        "block writes is also replaced by its mean over these images.",
        lens,
    ),
    Step(
        "patching",
        "Patching: which part carries the difference between two images",
        ("activation_patching",),
        "Each part, alone, gets the value that it has on the other image of a pair. Its share is how far the logit of "
        "the right class minus that of the other image's class moves: 0 is not at all, 1 is all the way. Intervals are "
        "bootstraps of 95 % over pairs.",
        patching,
    ),
    Step(
        "circuit",
        "Circuit: which edges are enough",
        ("circuit_discovery", "check_circuit", "circuit_evaluation", "path_patching"),
        "Edges outside a circuit carry what they have on the other image of a pair. 1 is the mouse's own difference of "
        "logits, 0 that of the other image. `a0.h3` is head 0.3 and `.q`, `.k`, `.v` what it reads, `m1` is the MLP of "
        "block 1. The score is the estimate by which edges are ranked. A circuit says something only if it is far "
        "better than random ones with as many edges.",
        circuit,
    ),
    Step(
        "dynamics",
        "Dynamics: when it was learned",
        ("ablation",),
        "A change point divides the checkpoints into two parts with a level each; the interval of its step and of the "
        "jump are bootstraps of 95 % over images, the same images at every checkpoint.",
        dynamics,
    ),
)
"""In the order of the page."""
