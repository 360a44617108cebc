import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rmiseg.training.depthwise import FastDepthwise

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 7))
STEPS = st.sampled_from([1, 1, 2, 3])


@settings(max_examples=200, deadline=None)
@given(
    kernel=SIZES,
    stride=st.tuples(STEPS, STEPS),
    dilation=st.tuples(STEPS, STEPS),
    padding=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    beyond=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    channels=st.integers(2, 20),
    bias=st.booleans(),
    memory_format=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    seed=st.integers(0, 99),
)
def test_gradients_are_those_of_pytorch(kernel, stride, dilation, padding, beyond, channels, bias, memory_format, seed):
    torch.manual_seed(seed)
    size = [max(d * (k - 1) + 1 - 2 * p, 1) + b for k, d, p, b in zip(kernel, dilation, padding, beyond)]
    conv = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=bias)
    exact = copy.deepcopy(conv).double()
    images = torch.randn(2, channels, *size).contiguous(memory_format=memory_format).requires_grad_()
    expected = exact(images.double())
    weights = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad((weights * expected).sum(), [images, *exact.parameters()])
    for dtype, tolerance in ((None, 1e-5), (torch.bfloat16, 2e-2)):
        with FastDepthwise(), torch.autocast("cpu", dtype, enabled=dtype is not None):
            output = conv(images)
        assert output.dtype == (dtype or torch.float32)
        gradients = torch.autograd.grad((weights * output).sum(), [images, *conv.parameters()])
        for found, right in zip([output, *gradients], [expected, *expected_gradients]):
            assert found.shape == right.shape
            assert (found.double() - right).norm() <= tolerance * right.norm() + 1e-6


def test_only_depthwise_convolutions_on_a_cpu_are_meant(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "rmiseg.training.depthwise._DepthwiseConv.apply", lambda input, *rest: calls.append(input.shape[1]) or input
    )
    images = torch.randn(2, 8, 6, 6)
    with FastDepthwise():
        for groups in (1, 2, 8):
            nn.Conv2d(8, 8, 3, padding=1, groups=groups)(images)
        nn.Conv2d(8, 16, 3, groups=8)(images)
        nn.Conv2d(8, 8, 3, padding="same", groups=8)(images)
        nn.Conv2d(1, 1, 3)(images[:, :1])
        nn.Conv2d(8, 8, 3, groups=8, device="meta")(images.to("meta"))
    nn.Conv2d(8, 8, 3, groups=8)(images)
    assert calls == [8]


def test_torch_compile_looks_into_it():
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 5, dilation=2, groups=8)
    images = torch.randn(2, 8, 12, 12)
    with FastDepthwise():
        output = torch.compile(conv, backend="aot_eager", fullgraph=True)(images)
    output.square().sum().backward()
    (right,) = torch.autograd.grad(conv(images).square().sum(), conv.weight)
    torch.testing.assert_close(conv.weight.grad, right)


def test_second_derivatives_are_refused():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    with FastDepthwise():
        output = conv(torch.randn(1, 4, 5, 5))
    (gradient,) = torch.autograd.grad(output.square().sum(), conv.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
