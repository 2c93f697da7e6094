"""Pixels in [0, 1] as the inputs of a network, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from prisma.errors import PrismaError
from prisma.numbers import exact

BEYOND = 0.1  # how far inputs may be beyond black and white, as where pictures were resized by cubic curves


class Scaled:
    """Pixels and inputs of a network, by the numbers that a black and a white pixel become."""

    shape: tuple[int, int, int]

    def __init__(self, ends: Sequence[tuple[float, float]], device: torch.device, dtype: torch.dtype) -> None:
        low, high = torch.tensor(ends, dtype=torch.float32).T[:, :, None, None].to(device)
        self.device, self.dtype, self._low, self._span = device, dtype, low, high - low

    def normalise(self, pixels: Tensor) -> Tensor:
        return (self._low + pixels.to(self.device) * self._span).to(self.dtype)

    def pixels(self, inputs: Tensor) -> Tensor:
        return self._unclipped(inputs).clamp(0, 1)

    def _unclipped(self, inputs: Tensor) -> Tensor:
        return (exact(inputs).to(self.device) - self._low) / self._span

    def expect_inputs(self, inputs: Tensor) -> None:
        if inputs.ndim != 4 or tuple(inputs.shape[1:]) != self.shape or not inputs.is_floating_point():
            raise PrismaError(
                f"expected data [image, {', '.join(map(str, self.shape))}] as floats, the inputs of the network; found "
                f"{list(inputs.shape)} of {str(inputs.dtype).removeprefix('torch.')}"
            )
        low, high = (float(x) for x in self._unclipped(inputs).aminmax())
        if not (low >= -BEYOND and high <= 1 + BEYOND):
            raise PrismaError(
                "expected data that the transform gives, from black, which is 0 here, to white, which is 1; found "
                f"{low:.3g} to {high:.3g}"
            )
