"""The modes of PyTorch in which a call is more than a computation: function transforms, and recording of any kind."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental import proxy_tensor


def is_transformed() -> bool:
    """True inside of the transforms of `torch.func`, and of forward-mode differentiation."""
    # Neither has a public name.
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_recorded() -> bool:
    """True if the operations are recorded, to run later on other values, or in another grad mode."""
    if torch.compiler.is_compiling():
        return True
    traced = torch._C._get_tracing_state() is not None  # torch.jit.trace
    return traced or proxy_tensor.get_proxy_mode() is not None  # make_fx


def is_kept() -> bool:
    """True if the operations are recorded to run later in any grad mode; `torch.compile` records them for each."""
    return is_recorded() and (torch.compiler.is_exporting() or not torch.compiler.is_compiling())


def is_plain_call(*tensors: Tensor) -> bool:
    """True if nothing but autograd sees the operations on tensors: no recording, no subclass, no dispatch mode."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    modes = torch._C._len_torch_dispatch_stack()
    modes += torch._ops._len_torch_dispatch_stack_pre_dispatch()  # type: ignore[no-untyped-call]  # nor is it by torch
    return modes == 0 and all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)


def has_no_values() -> bool:
    """True if tensors have shapes alone (FakeTensorMode), as where the memory of a training is foreseen."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None


def hides_values() -> bool:
    """True if no branch may depend on the values of tensors."""
    return is_transformed() or is_recorded() or has_no_values()
