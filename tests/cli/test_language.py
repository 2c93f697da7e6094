"""Causal tracing and rewriting a fact at the command line."""

import json
from pathlib import Path

import pytest
import torch

from prisma.editing.weight_edit import WeightEdit
from prisma.language.average_trace import AverageTrace
from prisma.language.causal_trace import CausalTrace
from prisma.language.mouse import known_facts, texts
from tests.cli.running import Prisma, one_sentence

FACT = known_facts()[0]
ASKED = ("--model", "mice/facts", "--prompt", FACT.prompt, "--subject", FACT.subject)
QUICK = ("--samples", "2", "--device", "cpu")


def test_a_trace_is_printed_and_written(prisma: Prisma, tmp_path: Path) -> None:
    code, out, _ = prisma("trace", *ASKED, "--answer", FACT.true, *QUICK, "--out", "trace")
    _first, last = FACT.subject.split()
    assert code == 0 and f"{last}*" in out and f"-> '{FACT.true}': probability" in out
    found = CausalTrace.from_npz(tmp_path / "trace" / "trace.npz")
    assert f"{found.effect[2, 0]:+.3f}" in out and (tmp_path / "trace" / "trace.png").stat().st_size > 1000
    code, out, _ = prisma("trace", *ASKED, *QUICK, "--kind", "mlp", "--window", "2", "--json")
    printed = json.loads(out)
    assert code == 0 and printed["metadata"]["window"] == 2 and len(printed["arrays"]["effect"]["values"]) == 6


def test_the_average_of_a_file(prisma: Prisma, tmp_path: Path) -> None:
    records = [{"template": x.prompt, "subject": x.subject, "attribute": x.true} for x in known_facts()[:2]]
    (tmp_path / "facts.json").write_text(json.dumps(records))
    code, out, _ = prisma("trace", "--model", "mice/facts", "--facts", "facts.json", *QUICK, "--out", "trace")
    found = AverageTrace.from_npz(tmp_path / "trace" / "trace.npz")
    assert code == 0 and "2 of 2 facts are known" in out and len(found.indirect) == 2


def test_a_fact_is_rewritten(prisma: Prisma, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(texts()[:200]))
    code, out, _ = prisma(
        "rewrite",
        *ASKED,
        "--to",
        FACT.new,
        "--layer",
        "1",
        "--texts",
        "texts.txt",
        "--out",
        "edited",
        "--device",
        "cpu",
    )
    assert code == 0 and "The edited model and the edit are in edited." in out
    assert "Loss of a token in 200 texts: " in out
    card, measures = (tmp_path / "edited" / x for x in ("README.md", "measures.json"))
    after = json.loads(measures.read_text())["facts"][0]["likelihood"][1]
    assert (
        f"| {FACT.text} | {FACT.new} | " in card.read_text()
        and f" | {after:.4f} | 0.0000 | 1.0000 |" in card.read_text()
    )
    code, _, err = prisma("publish", "edited", "lab/x", "--hub", "hub", "--base-model", "mice/facts")
    assert code == 1 and "expected a base model on the Hub; found 'mice/facts'" in one_sentence(err)
    edit = WeightEdit.read(tmp_path / "edited" / "edit.safetensors")
    assert edit.about["new"] == FACT.new and edit.about["probability_after"] > 0.5
    code, out, _ = prisma("trace", "--model", str(tmp_path / "edited"), *ASKED[2:], "--answer", FACT.new, *QUICK)
    assert code == 0 and f"-> '{FACT.new}'" in out
    assert torch.isfinite(edit.parts[0].u).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model", "mice/facts"), "expected --prompt and --subject, or --facts; found neither or both"),
        ((*ASKED[:2], "--prompt", "Ada plays the", "--subject", "Zed"), "expected the subject 'Zed' in the prompt"),
        ((*ASKED, "--answer", FACT.new), "the model does not know this fact"),
        ((*ASKED, "--kind", "heads"), "expected kind to be one of hidden, mlp, attention"),
        (("--model", "mice/facts", "--facts", "x.json", "--form", "y"), "expected --form to be one of known"),
        ((*ASKED, "--out", "there"), "expected a new or empty folder at there; found 1 entries"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    prisma: Prisma, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    code, _, err = prisma("trace", *arguments, "--device", "cpu")
    assert code == 1 and sentence in one_sentence(err)


def test_a_fact_that_cannot_be_rewritten_writes_nothing(prisma: Prisma, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(texts()[:20]))
    (tmp_path / "empty.txt").write_text("\n")
    for to, file, sentence in (
        (FACT.true, "texts.txt", f"found that it says '{FACT.true}' with probability 0.9"),
        ("zebra", "texts.txt", "an answer of words that the tokenizer knows; found 'zebra'"),
        (FACT.new, "empty.txt", "expected texts in empty.txt, one on each line; found none"),
    ):
        asked = (*ASKED, "--to", to, "--layer", "0", "--texts", file, "--out", "out", "--device", "cpu")
        code, _, err = prisma("rewrite", *asked)
        assert code == 1 and sentence in one_sentence(err)
    assert not (tmp_path / "out").exists()
