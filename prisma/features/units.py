"""Units as text: `SITE:INDEX`, as the command line has them."""

import re
from collections.abc import Iterable, Sequence

from prisma.errors import PrismaError, nearest, quoted
from prisma.features.objectives import Channel
from prisma.features.subjects import OUTPUT

MOST = 100_000
_FORM = re.compile(
    r"(?P<site>[^:]+):(?P<index>.+?)(,head=(?P<head>\d{1,9}))?(,token=(?P<token>-?\w{1,9}))?", re.ASCII | re.DOTALL
)


def units_of(texts: Iterable[str], sites: Sequence[str], labels: Sequence[str] = ()) -> list[Channel]:
    """The units that texts name, in order, each once.

    `blocks.3.mlp.post:17`, `blocks.3.mlp.post:0-63`, `blocks.3.mlp.post:17,token=class` (a kind of token, one by its
    place, or `mean` of all; else the patches), `blocks.3.attn.z:5,head=2`, `logits:3`, `logits:red square`.

    Args:
        sites: those of the model.
        labels: names of its classes.

    Raises:
        PrismaError: another form, or a site or class that there is not; the nearest are given.
    """
    found: dict[Channel, None] = {}
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            raise PrismaError(f"expected a unit as SITE:INDEX, such as blocks.3.mlp.post:17; found {quoted(text)}")
        site, head = match["site"], None if match["head"] is None else int(match["head"])
        if site not in sites:
            raise PrismaError(f"no site of this model is called {quoted(site)}; the nearest are {nearest(site, sites)}")
        where = {None: "patches", "mean": "all"}.get(match["token"], match["token"])
        for index in _indices(match["index"], site, labels):
            found[Channel(site, index, int(where) if re.fullmatch(r"-?\d+", where) else where, head)] = None
    if not 0 < len(found) <= MOST:
        raise PrismaError(f"expected 1 to {MOST:,} units; found {len(found):,}")
    return list(found)


def _indices(text: str, site: str, labels: Sequence[str]) -> range:
    if site == OUTPUT and list(labels).count(text) == 1:
        return range(list(labels).index(text), list(labels).index(text) + 1)
    span = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text, re.ASCII)
    if span is None or int(span[2] or span[1]) - int(span[1]) not in range(MOST):
        of_classes = f"; the nearest classes are {nearest(text, labels)}" if site == OUTPUT and labels else ""
        raise PrismaError(f"expected an index of {site}, or a range such as 0-63; found {quoted(text)}{of_classes}")
    return range(int(span[1]), int(span[2] or span[1]) + 1)
