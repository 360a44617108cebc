"""Depthwise convolutions with gradients that a CPU computes fast.

oneDNN, which PyTorch calls on a CPU, has fast code for every depthwise convolution, but not for all of their gradients:
with dilation, and in bfloat16 with strides or kernels of 5 x 5, these take ten to a hundred times as long as the
convolution. That was half of a step of an EfficientNet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]


class FastDepthwise(TorchFunctionMode):
    """A context in which every depthwise `torch.conv2d` on a CPU has fast gradients, whatever network calls it.

    Values and gradients are those of PyTorch but for rounding; second derivatives are refused.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        called = _conv2d if func is torch.conv2d else func
        return called(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Return what `torch.conv2d` does."""
    depthwise = input.dim() == 4 and groups == input.shape[1] == len(weight) > 1 and not isinstance(padding, str)
    plain = type(input) is Tensor and type(weight) in (Tensor, nn.Parameter) and input.device.type == "cpu"
    if not depthwise or not plain:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        input, weight, bias = input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    output: Tensor = _DepthwiseConv.apply(input, weight, bias, *map(_pair, (stride, padding, dilation)))
    return output


def _pair(size: Any) -> Pair:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = stride, padding, dilation
        with torch.autocast("cpu", enabled=False):
            return torch.conv2d(input, weight, bias, stride, padding, dilation, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad[:3]
        return (
            _input_gradient(grad, input, weight, *ctx.geometry) if of_input else None,
            _weight_gradient(grad, input, weight, *ctx.geometry) if of_weight else None,
            grad.sum((0, 2, 3)) if of_bias else None,
            *(None, None, None),
        )


def _input_gradient(grad: Tensor, input: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """Return the gradient of the input: at stride 1 the convolution of `grad` with the kernel turned round."""
    around = [step * (size - 1) - pad for step, size, pad in zip(dilation, weight.shape[2:], padding)]
    if stride == (1, 1) and min(around) >= 0:
        return torch.conv2d(grad, weight.flip(2, 3), None, 1, around, dilation, len(weight))
    like = torch.empty_like(input, dtype=_widened(grad.dtype))  # its size alone counts
    return _gradients(grad, like, weight, stride, padding, dilation, [True, False, False])[0].to(input.dtype)


def _weight_gradient(
    grad: Tensor, input: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    if max(weight.shape[2:]) > 3 or dilation != (1, 1):
        input = input.to(_widened(grad.dtype))
    return _gradients(grad, input, weight, stride, padding, dilation, [False, True, False])[1].to(weight.dtype)


def _widened(dtype: torch.dtype) -> torch.dtype:
    """The type in which slow gradients are computed: float32 for narrower ones."""
    return torch.float32 if dtype.itemsize < 4 else dtype


def _gradients(
    grad: Tensor, input: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, mask: list[bool]
) -> tuple[Tensor, ...]:
    """Return PyTorch's own gradients of those of input, weight and bias that `mask` names, in the type of `input`."""
    grad, weight = grad.to(input.dtype), weight.to(input.dtype)
    gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad, input, weight, None, stride, padding, dilation, False, [0, 0], len(weight), mask
    )
    return gradients
