"""Compile the Triton kernels for an H100, as the functions launch them, without a GPU: one line a specialization.

Run in a process of its own without TRITON_INTERPRET (see test_triton.py), or alone:
python tests/kernels/compile_triton.py [--all]
"""

import itertools
import re
import sys
from dataclasses import replace

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

TARGET = GPUTarget("cuda", 90, 32)
BACKEND = make_backend(TARGET)

compiled = {}


def compile_only(self, *args, grid, warmup=False, **kwargs):
    """Instead of JITFunction.run: the same specialization of arguments, but no launch."""
    assert all(side < limit for side, limit in zip(grid, (1 << 31, 1 << 16, 1 << 16)))
    kwargs |= {"debug": False, "instrumentation_mode": ""}
    binder = create_function_from_signature(self.signature, self.params, BACKEND)
    arguments, specialization, options = binder(*args, **kwargs)
    options, signature, constants, attributes = self._pack_args(BACKEND, kwargs, arguments, specialization, options)
    key = (self.__name__, str(signature), str(constants), str(sorted(attributes)))
    if key in compiled:
        return
    source = ASTSource(self, signature, constexprs=constants, attrs=attributes)
    result = triton.compile(source, target=TARGET, options=options.__dict__)
    compiled[key] = result
    shown = {name: value for name, value in arguments.items() if name.isupper()}
    spills = len(re.findall(r"\bst\.local", result.asm["ptx"]))
    print(self.__name__, shown, f"{len(result.asm['cubin'])} bytes", f"{spills} local stores", flush=True)


def totals(samples):
    from rmiseg.kernels.terms import Shares
    from rmiseg.kernels.triton.totals import join, loss_and_gradient

    pixel, rmi = torch.zeros(samples), torch.zeros((samples, 3), dtype=torch.float64)
    weights = rmi[:, :1].expand_as(rmi)
    sums = join(pixel, rmi, rmi, weights, None)
    counts, unknown = torch.zeros((samples, 2, 2), dtype=torch.long).unbind(-1)
    loss_and_gradient(join(pixel, rmi, rmi, weights, 0.5), counts, unknown[:, 0], Shares(0.5, 1, 0.5))
    loss_and_gradient(sums, counts.double(), unknown[:, 0] > 0, Shares(1.0, 0, 0.3))
    loss_and_gradient(pixel.unsqueeze(1), counts[:, :1], None, Shares(1.0, 0))


def whole(samples, size, *loss):
    from rmiseg.kernels.terms import WholeLoss
    from rmiseg.kernels.triton.loss import loss_backward, loss_forward

    logits, target = torch.zeros((samples, 3, *size)), torch.zeros((samples, *size), dtype=torch.long)
    value, saved = loss_forward(logits, target, WholeLoss((255,), *loss), True)
    loss_backward(value, logits, *saved, WholeLoss((255,), *loss))


def main(everything: bool):
    JITFunction.run = compile_only
    from rmiseg.functional import RMIOptions
    from rmiseg.kernels.terms import Shares
    from rmiseg.kernels.triton import launch as kernels

    def both(shape, size, options, dtype=torch.float32, layout=torch.contiguous_format, weighted=False):
        logits = torch.zeros(shape, dtype=dtype).contiguous(memory_format=layout)
        target = torch.zeros((shape[0], *size), dtype=torch.long)
        valid = torch.ones_like(target, dtype=torch.bool)
        inputs = logits, target, valid, torch.ones(shape[1], dtype=torch.float64) if weighted else None
        pixel, rmi, _, _, gradient_maps = kernels.rmi_forward(*inputs, options, True, False)
        kernels.rmi_backward(pixel, rmi, *inputs, gradient_maps, options)
        pixel = kernels.pixel_forward(*inputs, options.pixel_loss, options.align_corners)
        kernels.pixel_backward(pixel, *inputs, options.pixel_loss, options.align_corners)

    full, low = (33, 50), (9, 13)
    default = RMIOptions(3, "avg", 4, "bce", False)
    both((2, 3, *full), full, default)
    both((2, 3, *full), full, default, torch.bfloat16, torch.channels_last)
    both((2, 3, *low), full, default)
    for samples in (1, 3):
        totals(samples)
        whole(samples, full, "bce", False, Shares(0.5, 1, 0.5), default, 0.3)
        whole(samples, full, "ce", False, Shares(1.0, 0))
    both((2, 3, *full), full, RMIOptions(3, "max", 4, "ce", False))
    both((2, 3, *low), full, RMIOptions(2, "interp", 4, "ce", True))
    both((2, 3, *low), full, RMIOptions(4, "max", 3, "bce", False), torch.float64)
    both((2, 3, *full), full, default, weighted=True)
    both((2, 3, *full), full, replace(default, batch=3))
    both((2, 3, *low), full, RMIOptions(3, "avg", 4, "ce", False), torch.bfloat16, weighted=True)
    # Sides of 1, which Triton makes constants of.
    both((1, 1, 1, 1), (1, 1), RMIOptions(1, "avg", 1, "ce", False))
    both((1, 1, 1, 1), (9, 7), RMIOptions(1, "interp", 4, "bce", False))
    both((1, 1, 1, 1), (9, 7), RMIOptions(1, "max", 2, "ce", True))
    if everything:
        for pool, pixel_loss in itertools.product(("avg", "max", "interp"), ("bce", "ce")):
            both((2, 3, *full), full, RMIOptions(3, pool, 4, pixel_loss, False))
            both((2, 3, *low), full, RMIOptions(3, pool, 4, pixel_loss, False))
            both((2, 3, *full), full, RMIOptions(3, pool, 4, pixel_loss, False), weighted=True)
            both((2, 3, *low), full, RMIOptions(3, pool, 4, pixel_loss, False), weighted=True)
        for pool_size in (1, 2, 3, 5, 6, 7, 8, 16, 64):
            both((2, 3, 64, 64), (64, 64), RMIOptions(1, "avg", pool_size, "bce", False))
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            both((2, 3, *full), full, RMIOptions(3, "avg", 4, "bce", False), dtype, torch.channels_last)
            both((2, 3, *low), full, RMIOptions(2, "max", 4, "ce", False), dtype)
        for pool, pixel_loss in itertools.product(("avg", "max"), ("bce", "ce")):
            both((1, 1, 1, 1), (1, 1), RMIOptions(1, pool, 2, pixel_loss, False))
            both((1, 1, 1, 1), (9, 7), RMIOptions(1, pool, 2, pixel_loss, True))
            both((1, 1, 1, 1), (9, 7), RMIOptions(1, "interp", 4, pixel_loss, False))
    # Strides beyond 2^31, and long sides, without the memory.
    logits = torch.empty_strided((1, 3, 20000, 8), (1 << 33, 1 << 31, 8, 1), dtype=torch.bfloat16, device="meta")
    target = torch.empty((1, 20000, 16), dtype=torch.long, device="meta")
    pixel = kernels.pixel_forward(logits, target, target > 0, None, "bce", False)
    kernels.pixel_backward(pixel, logits, target, target > 0, None, "bce", False)
    print("compiled", len(compiled))


if __name__ == "__main__":
    main(everything="--all" in sys.argv)
