"""Units as text: `SITE:INDEX`, as the command line has them."""

import re
from collections.abc import Callable, Iterable, Sequence

from prisma.analysis.readings import Reading
from prisma.errors import PrismaError, nearest, quoted
from prisma.features.objectives import Channel
from prisma.features.subjects import OUTPUT

MOST = 100_000
_FORM = re.compile(
    r"(?P<site>[^:]+):(?P<index>.+?)(,head=(?P<head>\d{1,9}))?(,token=(?P<token>-?\w{1,9}))?", re.ASCII | re.DOTALL
)


LATENT = "latent"
"""In the place of a site: of a sparse coder."""


def units_of(
    texts: Iterable[str],
    sites: Sequence[str],
    labels: Sequence[str] = (),
    latent: Callable[[int, int | None], Reading] | None = None,
) -> list[Reading]:
    """The units that texts name, in order, each once.

    `blocks.3.mlp.post:17`, `blocks.3.mlp.post:0-63`, `blocks.3.mlp.post:17,token=class` (a kind of token, one by its
    place, or `mean` of all; else the patches), `blocks.3.attn.z:5,head=2`, `logits:3`, `logits:red square`,
    `features.4:17` of a CNN, `latent:17` of a sparse coder (averaged over tokens, or at one by its place).

    Args:
        sites: those of the model.
        labels: names of its classes.
        latent: of a coder: an index, and a token or None for all of them -> the latent.

    Raises:
        PrismaError: another form, or a site or class that there is not; the nearest are given.
    """
    found: dict[object, Reading] = {}
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            raise PrismaError(f"expected a unit as SITE:INDEX, such as blocks.3.mlp.post:17; found {quoted(text)}")
        site, head, token = match["site"], None if match["head"] is None else int(match["head"]), match["token"]
        where: str | int = {None: "patches", "mean": "all"}.get(token, token)
        where = int(where) if re.fullmatch(r"-?\d+", str(where)) else where
        if site == LATENT and latent is not None:
            if head is not None or (where not in ("patches", "all") and not isinstance(where, int)):
                raise PrismaError(f"expected a latent as latent:17, or with ,token=0; found {quoted(text)}")
            at = where if isinstance(where, int) else None
            found |= {
                (LATENT, i, at): latent(i, at)
                for i in _indices(match["index"], site, ())
                if (LATENT, i, at) not in found
            }
            continue
        if site not in sites:
            more = "; latents need --coder" if site == LATENT else ""
            raise PrismaError(
                f"no site of this model is called {quoted(site)}{more}; the nearest are {nearest(site, sites)}"
            )
        for index in _indices(match["index"], site, labels):
            unit = Channel(site, index, where, head)
            found[unit] = unit
    if not 0 < len(found) <= MOST:
        raise PrismaError(f"expected 1 to {MOST:,} units; found {len(found):,}")
    return list(found.values())


def _indices(text: str, site: str, labels: Sequence[str]) -> range:
    if site == OUTPUT and list(labels).count(text) == 1:
        return range(list(labels).index(text), list(labels).index(text) + 1)
    span = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text, re.ASCII)
    if span is None or int(span[2] or span[1]) - int(span[1]) not in range(MOST):
        of_classes = f"; the nearest classes are {nearest(text, labels)}" if site == OUTPUT and labels else ""
        raise PrismaError(f"expected an index of {site}, or a range such as 0-63; found {quoted(text)}{of_classes}")
    return range(int(span[1]), int(span[2] or span[1]) + 1)
