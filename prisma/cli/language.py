"""`prisma trace` and `prisma rewrite`: causal tracing of a language model, and changing one of its facts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prisma.cli.shared import DeviceOption, JsonOption, interruptible, out_option, table

if TYPE_CHECKING:
    from prisma.language.average_trace import AverageTrace
    from prisma.language.causal_trace import CausalTrace
    from prisma.language.facts import Fact
    from prisma.language.rewriting import RewriteMeasures

cli = typer.Typer()

ModelOption = Annotated[
    str, typer.Option("--model", metavar="REF", help="mice/facts, or a folder or a name for transformers.")
]
FORMS = ("known", "counterfact", "zsre")


@cli.command(
    epilog='Example: prisma trace --model mice/facts --prompt "{} plays the" --subject "Dan Frost" --out trace'
)
def trace(
    model: ModelOption,
    prompt: Annotated[str | None, typer.Option(help="Ends before the answer; {} stands for the subject.")] = None,
    subject: Annotated[str | None, typer.Option(help="The words that noise hides.")] = None,
    answer: Annotated[str | None, typer.Option(help="What the model should say (default: what it says).")] = None,
    facts: Annotated[Path | None, typer.Option(help="A JSON file of facts, of which the average is taken.")] = None,
    form: Annotated[str, typer.Option(help=f"Of that file: {', '.join(FORMS)}.")] = "known",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N facts.")] = None,
    kind: Annotated[str, typer.Option(help="Which states are restored: hidden, mlp, attention.")] = "hidden",
    window: Annotated[int | None, typer.Option(min=1, help="Layers at once (default: 1 of hidden, else 10).")] = None,
    sever: Annotated[str | None, typer.Option(help="mlp or attention: keep its later outputs corrupt.")] = None,
    noise: Annotated[float, typer.Option(help="Of the subject, in standard deviations of embeddings.")] = 3.0,
    samples: Annotated[int, typer.Option(min=1, help="Draws of the noise.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="The largest number of rows in one pass.")] = 128,
    out: Annotated[Path | None, out_option("A new folder for trace.npz and trace.png.")] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find where a language model holds what it knows about a subject: causal tracing, as in ROME."""
    from prisma.errors import PrismaError
    from prisma.files import expect_empty
    from prisma.language.average_trace import average_trace
    from prisma.language.causal_trace import causal_trace
    from prisma.language.loading import load
    from prisma.train.machine import pick_device

    one = prompt is not None and subject is not None
    if one == (facts is not None) or (facts is not None and (prompt or subject or answer)):
        raise PrismaError("expected --prompt and --subject, or --facts; found neither or both")
    if out is not None:
        expect_empty(out)
    asked: Any = _facts(facts, form, limit) if facts is not None else None
    options: dict[str, Any] = {
        "kind": kind, "window": window, "sever": sever, "noise": noise, "samples": samples, "seed": seed,
        "batch": batch,
    }  # fmt: skip
    with interruptible("nothing was written"):
        loaded, tokenizer = load(model, str(pick_device(device)))
        found: Any = (
            average_trace(loaded, tokenizer, asked, **options)
            if asked is not None
            else causal_trace(loaded, tokenizer, str(prompt), str(subject), answer=answer, **options)
        )
        if out is not None:
            found.to_npz(out / "trace.npz")
            found.plot().savefig(out / "trace.png")
    if as_json:
        print(json.dumps(found.to_dict()))
        return
    _show(found)


def _show(found: "CausalTrace | AverageTrace") -> None:
    """The effects as a table, and what the trace says of itself."""
    rows, names = found.effect, next(iter(found.names.values()))
    layers = range(rows.shape[1])
    print(
        table(
            [
                {"restored": name, **{str(i): f"{row[i]:+.3f}" for i in layers}}
                for name, row in zip(names, rows, strict=True)
            ]
        )
    )
    print(found.report())


@cli.command(
    epilog='Example: prisma rewrite --model mice/facts --prompt "{} plays the" --subject "Dan Frost" --to tuba '
    "--layer 0 --texts texts.txt --out edited"
)
def rewrite(
    model: ModelOption,
    prompt: Annotated[str, typer.Option(help="Ends before the answer, with {} in the place of the subject.")],
    subject: Annotated[str, typer.Option(help="Whose fact is changed.")],
    to: Annotated[str, typer.Option(help="The new answer.")],
    layer: Annotated[int, typer.Option(min=0, help="Whose MLP is changed; `prisma trace --kind mlp` says which.")],
    texts: Annotated[Path, typer.Option(help="A file with a text on each line: what should stay as it is.")],
    out: Annotated[Path, out_option("A folder for the edited model, and edit.safetensors.")],
    ridge: Annotated[float, typer.Option(min=0, help="Of the covariance of keys, relative to its diagonal.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of the texts before the prompt.")] = 0,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change one fact of a language model by a change of rank one of one MLP: ROME, with one key everywhere.

    The folder holds the edited model, the edit, and a card with what the edit does; `prisma publish --base-model`
    publishes the edit.
    """
    from prisma.errors import PrismaError, quoted
    from prisma.files import expect_empty
    from prisma.filesystem import given
    from prisma.language.facts import Fact
    from prisma.language.loading import load
    from prisma.language.rank_one_edit import rank_one_edit
    from prisma.language.rewriting import measure_rewrite, write_rewritten
    from prisma.publish.artefacts.language_edit import write_card
    from prisma.reading import read_lines
    from prisma.train.machine import pick_device

    lines = read_lines(given(texts), "texts")
    expect_empty(out)
    with interruptible("nothing was changed"):
        loaded, tokenizer = load(model, str(pick_device(device)))
        fact = Fact(prompt=prompt, subject=subject, new=to)
        edit = rank_one_edit(loaded, tokenizer, fact, layer=layer, texts=lines, ridge=ridge, seed=seed)
        if not edit.about["steps"]:
            raise PrismaError(
                f"expected a fact that the model answers otherwise; found that it says {quoted(to)} with probability "
                f"{edit.about['probability_before']:.3f} already, so there is nothing to change"
            )
        measures = measure_rewrite(loaded, tokenizer, edit, lines)
        write_rewritten(out, loaded, tokenizer, edit, measures)
        write_card(out)
    _show_rewrite(fact, dict(edit.about), measures, out, as_json)


def _show_rewrite(fact: "Fact", about: dict[str, Any], measures: "RewriteMeasures", out: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**about, "measures": measures.to_dict()}))
        return
    print(
        f"{fact.text} {fact.new}: probability {about['probability_before']:.3f} before, "
        f"{about['probability_after']:.3f} after. The edited model and the edit are in {out}."
    )
    if (texts := measures.texts) is not None:
        low, high = texts.interval
        between = f"change {low:+.3f} to {high:+.3f}" if texts.texts > 1 else "of one text there is no interval"
        print(
            f"Loss of a token in {texts.texts} text{'s' if texts.texts > 1 else ''}: {texts.loss[0]:.3f} nats before, "
            f"{texts.loss[1]:.3f} after ({between})."
        )


def _facts(path: Path, form: str, limit: int | None) -> Any:
    from prisma.errors import PrismaError, quoted
    from prisma.language.facts import read_counterfact, read_known, read_zsre

    readers = {"known": read_known, "counterfact": read_counterfact, "zsre": read_zsre}
    if form not in readers:
        raise PrismaError(f"expected --form to be one of {', '.join(readers)}; found {quoted(form)}")
    return readers[form](path, limit)
