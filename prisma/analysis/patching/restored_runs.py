"""How causal tracing shares work: each restored run starts in the layer in which its first state is restored.

What comes before that state is the same as in the corrupt run, and is not computed again.

Shapes: B image, S sample of noise, R row (a sample of an image), U unit, T token (prefix first), P patch, M d_model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.border import record
from prisma.edits import Add, Set
from prisma.runs import attention_stream, finish, in_steps, resume, run, sites_of_every_block
from prisma.sites import Tap
from prisma.vit import ViT

RESTORED: Mapping[str, str | None] = {
    "resid_post": "mlp_out",
    "attn_out": "attn_out",
    "mlp_out": "mlp_out",
    "time_out": None,
}
"""Site that can be restored -> the site of its block that a restored run continues from; None for the whole block."""


class RestoredRuns:
    """Some images, S corrupt runs of each (the rows), and which of their states are restored."""

    def __init__(
        self,
        model: ViT,
        images: Tensor,
        object_BP: Tensor,
        noise_RPM: Tensor,
        masks_BUT: Tensor,
        sites: Sequence[str],
        sever: str | None,
        size: int,
    ) -> None:
        self.model, self.sites, self.masks_BUT, self.size = model, sites, masks_BUT, size
        self.samples = len(noise_RPM) // len(images)
        self.clean = record(model, images, sites, stop=True)[1]
        self.images = images.repeat_interleave(self.samples, 0)
        noise_RPM = noise_RPM * object_BP.repeat_interleave(self.samples, 0)[..., None]
        noise_RTM = F.pad(noise_RPM, (0, 0, model.config.n_prefix, 0))
        self.noise_RTM, self.noise = noise_RTM, {"embed": (Add(noise_RTM),)}
        self.in_steps = in_steps(model, sites[0].removeprefix("blocks.0."))
        severed = [] if sever is None else sites_of_every_block(model, sever)
        if self.in_steps:
            self.x_RTM = model.embed(self.images, Tap(edit=self.noise))
            tap = Tap(severed)
            if severed:
                model.encode(self.x_RTM, tap=tap)
            self.severed: Mapping[str, Tensor] = tap.tensors
        else:
            self.severed = record(model, self.images, severed, self.noise)[1]
        self.resumed = RESTORED[sites[0].removeprefix("blocks.0.")]
        if self.resumed == "mlp_out" and not model.config.d_mlp:
            self.resumed = "resid_mid"

    def logits(self, window: int) -> Tensor:
        """Logits [1 + layer * unit, row, class] of the corrupt runs, and of those with each cell restored."""
        layers = range(len(self.sites))
        spans = {
            layer: range(max(layer - window // 2, 0), min(layer + (window + 1) // 2, len(layers))) for layer in layers
        }
        if not self.in_steps:
            corrupt_RC = run(self.model, self.images, self.noise)
            return torch.cat([corrupt_RC[None], *(self._restored(None, spans[layer], {}) for layer in layers)])
        x_RTM, logits = self.x_RTM, {}
        for first in layers:
            corrupt = self._corrupt_sites(first)
            after_RTM = self.model.encode(x_RTM, start=first, stop=first + 1, tap=corrupt)
            for layer in (layer for layer, span in spans.items() if span.start == first):
                logits[layer] = self._restored(x_RTM, spans[layer], corrupt.tensors)
            x_RTM = after_RTM
        corrupt_RC = finish(self.model, x_RTM, self.images, start=len(layers))
        return torch.cat([corrupt_RC[None], *(logits[layer] for layer in layers)])

    def _corrupt_sites(self, layer: int) -> Tap:
        """A tap that reads what the restored runs that start in this layer share with the corrupt run."""
        if self.resumed is None:
            return Tap()
        block = f"blocks.{layer}."
        return Tap({attention_stream(self.model, layer), f"{block}resid_mid", block + self.resumed})

    def _restored(self, x_RTM: Tensor | None, span: range, corrupt: Mapping[str, Tensor]) -> Tensor:
        """Logits [unit, row, class] of the runs in which each unit's tokens have their clean states in some layers."""
        units, rows = self.masks_BUT.shape[1], len(self.images)
        logits = []
        for cells in torch.arange(units * rows, device=self.images.device).split(self.size):
            unit, row = cells // rows, cells % rows
            image = row // self.samples
            mask = self.masks_BUT[image, unit][..., None]
            edit: dict[str, tuple[Any, ...]] = {
                site: (Set(self.clean[site][image]).where(mask),) for site in self.sites[span.start : span.stop]
            }
            for site, value in self.severed.items():
                if int(site.split(".")[1]) >= span.start:
                    edit[site] = (Set(value[row]).where(mask),)
            logits.append(self._continued(x_RTM, span.start, corrupt, row, edit))
        return torch.cat(logits).unflatten(0, (units, rows))

    def _continued(
        self,
        x_RTM: Tensor | None,
        layer: int,
        corrupt: Mapping[str, Tensor],
        row: Tensor,
        edit: dict[str, tuple[Any, ...]],
    ) -> Tensor:
        """Logits [row, class] of runs with edits from a layer on; what comes before the edits is not computed again.

        Without a stream, these are whole runs.
        """
        images, tap = self.images[row], Tap(edit=edit)
        if x_RTM is None:
            return run(self.model, images, {"embed": Add(self.noise_RTM[row]), **edit})
        if self.resumed is None:
            return finish(self.model, x_RTM[row], images, start=layer, tap=tap)
        block = f"blocks.{layer}."
        sites = (block + self.resumed, attention_stream(self.model, layer), f"{block}resid_mid")
        value, stream, middle = (corrupt[site][row] for site in sites)
        return resume(self.model, images, layer, self.resumed, value, stream, middle, tap)
