"""`prisma sparse show`: a coder's latents as a folder of files that a browser opens."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prisma.cli.shared import (
    DeviceOption,
    ImagesOption,
    LimitOption,
    ModelOption,
    OtherModelOption,
    interruptible,
    out_option,
)

if TYPE_CHECKING:
    from prisma.analysis.clip_dissect import Proposal
    from prisma.data.pictures import Pictures
    from prisma.loaded import Loaded
    from prisma.sparse.latents import Latents

cli = typer.Typer()


@cli.command(epilog="Example: prisma sparse show runs/coder --model mice/sprites --images sprites --out dashboard")
def show(
    coder: Annotated[str, typer.Argument(metavar="CODER", help="A folder, or OWNER/NAME/FOLDER on the Hub.")],
    model: ModelOption,
    images: ImagesOption,
    out: Annotated[Path, out_option("A new or empty folder for the files.")],
    tokens: Annotated[str | None, typer.Option(help="As for train (default: those it was trained with).")] = None,
    top: Annotated[int, typer.Option(min=1, help="Images of each latent.")] = 9,
    effect_images: Annotated[int, typer.Option(min=0, help="Images on which its effect is measured; 0: none.")] = 3,
    prompts: Annotated[Path | None, typer.Option(help="Classes of a CLIP, one on each line of a file.")] = None,
    words: Annotated[
        Path | None, typer.Option(help="Words to propose as names, by --clip, one on each line of a file.")
    ] = None,
    clip: Annotated[
        str | None, typer.Option(metavar="REF", help="The CLIP that proposes names (default: the model, if it is one).")
    ] = None,
    title: Annotated[str, typer.Option(help="The heading.")] = "",
    limit: LimitOption = None,
    site: Annotated[str | None, typer.Option(help="Where it reads, if its file names that otherwise.")] = None,
    layer: Annotated[int | None, typer.Option(help="Which coder of a set with one for each layer.")] = None,
    other_model: OtherModelOption = False,
    device: DeviceOption = None,
) -> None:
    """Write a dashboard of a sparse coder: what each latent is active on, and what it does to the model's outputs.

    index.html in the folder opens in any browser, from the disk too. Names by a CLIP are proposals, and say so.
    """
    from prisma.data.pictures import pictures
    from prisma.errors import PrismaError
    from prisma.files import expect_empty
    from prisma.loaded import load
    from prisma.reading import read_lines
    from prisma.sparse.belonging import expect_trained_on
    from prisma.sparse.coders import at_site
    from prisma.sparse.dashboard import dashboard
    from prisma.sparse.latents import latents
    from prisma.sparse.loading import load_coder
    from prisma.train.machine import pick_device

    expect_empty(out)
    where, loaded = pick_device(device), load(model)
    expect_trained_on(found := load_coder(coder, layer=layer).to(where), loaded.model, other_model)
    found = found if site is None else at_site(found, site)
    namer = (load(clip) if clip else loaded) if words else None
    if namer is not None and namer.text is None:
        raise PrismaError("expected a CLIP to propose names from --words; found a model without text: say --clip REF")
    if prompts is not None:
        loaded = loaded.zero_shot(read_lines(prompts, "words"))
    shown = pictures(images, loaded.transform, loaded.config.input_shape, limit)
    of = None if tokens is None else "all" if tokens == "all" else [name.strip() for name in tokens.split(",")]
    with interruptible("nothing can be continued: run the same command again, in an empty folder"):
        loaded.model.to(where)
        seen = latents(found, loaded.model, shown, tokens=of, top=top, effect_images=effect_images, other_model=True)
        named = _proposals(seen, namer, words, shown)
        assert shown.transform is not None, "pictures are read with one"
        page = dashboard(seen, found, shown, shown.transform, out, title=title, labels=loaded.labels, names=named)
    print(f"{seen.report(loaded.labels)} The dashboard is {page}.")


def _proposals(found: "Latents", clip: "Loaded | None", words: Path | None, shown: "Pictures") -> "dict[int, Proposal]":
    """Names by a CLIP, which reads the same images through its own transform."""
    from prisma.analysis.clip_dissect import similarity_of
    from prisma.reading import read_lines
    from prisma.sparse.naming import dissected

    if clip is None or words is None:
        return {}
    known = read_lines(words, "words")
    return dissected(found, similarity_of(clip, shown.for_model(clip.transform, clip.config.input_shape), known), known)
