"""The causal partner of what can be read: what restoring or ablating does, drawn beside a figure by layer."""

from collections.abc import Mapping

from torch import Tensor

from prisma.analysis.result import Effect, PairedEffect
from prisma.errors import PrismaError


def effects_by_layer(cause: Effect | None) -> Mapping[str, Tensor]:
    """Name -> [image, layer], of the columns of a causal analysis with a row for each layer; nothing of None.

    Raises:
        PrismaError: the analysis has not one row for each layer.
    """
    if cause is None:
        return {}
    values = cause.changes if isinstance(cause, PairedEffect) else cause.per_image
    axes = cause.axes.get("effect", ())
    if len(axes) != 2 or axes[0] != "layer":
        raise PrismaError(f"expected an analysis with effects [layer, ...]; found [{', '.join(axes)}]")
    names = cause.names.get(axes[1], [f"{axes[1]} {i}" for i in range(values.shape[-1])])
    return {name: values[..., i] for i, name in enumerate(names)}
