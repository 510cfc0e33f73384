"""Defines what stands between linear layers: dropout, batch normalisation, and both with ReLU in one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """Applies dropout (Srivastava et al., JMLR 2014) with one random byte an element instead of one random number.

    On a CPU, torch's own takes longer than the matrix product before it; this takes a third. The rate is rounded to a
    multiple of 1/256, and what is kept is scaled by that rounded rate, so that the expectation is exact.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout probability must be at least 0 and below 1, got {rate}")
        self.dropped = round(rate * 256)  # of 256 byte values

    def forward(self, x: Tensor) -> Tensor:
        """Returns x, of any shape, with elements dropped while training and unchanged at evaluation."""
        if not self.training or self.dropped == 0:
            return x
        # One type from the start: on a CPU, operations that mix types take up to twenty times as long.
        return x.to(torch.promote_types(x.dtype, torch.float32)) * self.kept(x, torch.float32).mul_(self.scale)

    @property
    def scale(self) -> float:
        """Factor by which a kept element is multiplied."""
        return 256 / (256 - self.dropped)

    def kept(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Draws a mask of x's shape: 1 for each element that is kept, 0 for the others."""
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        return words.view(torch.uint8)[: x.numel()].view(x.shape).to(dtype).ge_(self.dropped)


class BatchNorm(nn.Module):
    """Normalises by batch (Ioffe and Szegedy, ICML 2015): y = (x - m) / sqrt(v + 1e-5) * weight + bias.

    While training, m and v are the batch's moments; at evaluation, their running means. Rows of candidates and rows of
    groups come from different distributions, so ``scope`` says which of two sets of running moments is at work. A mean
    is exact over the first ten batches and exponential after them; a batch of one row is treated as at evaluation.
    """

    data_parallel = False  # moments are of whole batches
    scope: Literal["pair", "user"] = "pair"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        for scope in ("pair", "user"):
            self.register_buffer(f"{scope}_mean", torch.zeros(width))
            self.register_buffer(f"{scope}_var", torch.ones(width))
            self.register_buffer(f"{scope}_batches", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Returns x [N, width], of the rows that ``scope`` names, normalised."""
        mean, var = self.moments()
        x = x.float()  # under autocast too: moments need the precision
        if self.training and len(x) > 1:
            var_now, mean_now = torch.var_mean(x, dim=0, correction=0)
            self.track(mean_now, var_now, len(x))
            mean, var = mean_now, var_now
        return (x - mean) * torch.rsqrt(var + 1e-5) * self.weight + self.bias

    def moments(self) -> tuple[Tensor, Tensor]:
        """Returns the running mean and variance [width] of the rows that ``scope`` names."""
        return self.get_buffer(f"{self.scope}_mean"), self.get_buffer(f"{self.scope}_var")

    @torch.no_grad()
    def track(self, mean: Tensor, var: Tensor, rows: int) -> None:
        """Updates the running moments with those of a batch of so many rows."""
        (running, spread), batches = self.moments(), self.get_buffer(f"{self.scope}_batches")
        batches += 1
        share = (1 / batches).clamp(min=0.1)
        running.lerp_(mean, share)
        spread.lerp_(var * (rows / (rows - 1)), share)


class FusedNorm(BatchNorm):
    """Applies ``BatchNorm``, ReLU and ``Dropout`` in one step of torch's own kernel; results differ in the last digits.

    It takes a fraction of the time, and keeps no mask: what is positive in its output has been kept. Under autocast it
    works on bfloat16, with moments in float32.
    """

    def __init__(self, width: int, dropout: Dropout) -> None:
        super().__init__(width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Returns x [N, width], of the rows that ``scope`` names, normalised."""
        if self.training and len(x) > 1:
            y, mean, inverse = cast(
                tuple[Tensor, Tensor, Tensor],
                _NormReluDropout.apply(x, self.weight, self.bias, self.dropout),  # type: ignore[no-untyped-call]
            )
            self.track(mean, inverse.square().reciprocal() - 1e-5, len(x))
            return y
        mean, var = self.moments()
        dropped: Tensor = self.dropout(F.relu(F.batch_norm(x, mean, var, self.weight, self.bias, eps=1e-5)))
        return dropped


class _NormReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dropout: Dropout) -> tuple[Tensor, Tensor, Tensor]:
        ctx.scale = dropout.scale  # positive, so that it may go in front of the ReLU and into the affine part
        weight = weight * ctx.scale
        y, mean, inverse = torch.native_batch_norm(x, weight, bias * ctx.scale, None, None, True, 0.0, 1e-5)
        y.relu_()
        if dropout.dropped:
            y.mul_(dropout.kept(y, y.dtype))
        ctx.save_for_backward(x, weight, mean, inverse, y)
        ctx.mark_non_differentiable(mean, inverse)
        return y, mean, inverse

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, y = ctx.saved_tensors
        # Of one of several experts the gradient is a slice, on which the next line takes six times as long.
        above = torch.ops.aten.threshold_backward(gradient.contiguous(), y, 0)
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            above, x, weight, None, None, mean, inverse, True, 1e-5, [True, True, True]
        )
        return of_x, of_weight * ctx.scale, of_bias * ctx.scale, None


class FusedLayer(nn.Module):
    """Applies a linear layer and its ``FusedNorm``.

    At evaluation without gradients, the norm goes into the weights: a product and a ReLU are left.
    """

    def __init__(self, linear: nn.Linear, dropout: Dropout) -> None:
        super().__init__()
        self.linear, self.norm = linear, FusedNorm(linear.out_features, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the layer's output [N, width] for x [N, width_in], which may have passed ``ready``."""
        x = self.ready(x)
        weight, bias = _widened(self.linear.weight, x.shape[1]), self.linear.bias
        if torch.is_grad_enabled() or self.training:
            normal: Tensor = self.norm(F.linear(x, weight, bias))
            return normal
        mean, var = self.norm.moments()
        factor = self.norm.weight * torch.rsqrt(var + 1e-5)
        return F.linear(x, weight * factor.unsqueeze(1), (bias - mean) * factor + self.norm.bias).relu_()

    @staticmethod
    def ready(x: Tensor) -> Tensor:
        """Returns x [N, width_in] in autocast's type, with zeros up to a multiple of 16 columns for faster products."""
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        return _widened(x, x.shape[1] + -x.shape[1] % 16)


def _widened(x: Tensor, width: int) -> Tensor:
    pad = width - x.shape[1]
    return F.pad(x, (0, pad)) if pad else x  # a pad of nothing is a copy


NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": BatchNorm, "layer": nn.LayerNorm}
