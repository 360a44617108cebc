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
    """True if nothing but autograd sees the operations on tensors: no recording, no subclass, no dispatch mode.

    And if their values are in memory, as kernels read them; where they are not, PyTorch's dispatcher sees to it.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    modes = torch._C._len_torch_dispatch_stack()
    modes += torch._ops._len_torch_dispatch_stack_pre_dispatch()  # type: ignore[no-untyped-call]  # nor is it by torch
    return modes == 0 and all(type(each) in (Tensor, torch.nn.Parameter) and _is_in_memory(each) for each in tensors)


def written(gradient: Tensor) -> Tensor:
    """A gradient that autograd gives, with its values in memory, as kernels read them.

    Raises:
        RuntimeError: It is several at once.
    """
    if torch._C._functorch.is_legacy_batchedtensor(gradient):  # which has no public name
        raise RuntimeError(
            "this loss takes one gradient at a time; build it with implementation='plain', which is slower, for "
            "is_grads_batched=True and jacobian(vectorize=True)"
        )
    return gradient if _is_in_memory(gradient) else gradient.clone()


def _is_in_memory(tensor: Tensor) -> bool:
    """False if the memory holds values with the other sign, or none: of the imaginary parts of conjugates, or zeros
    that autograd makes."""
    return not (tensor.is_meta or tensor.is_neg() or tensor._is_zerotensor())


def has_no_values() -> bool:
    """True if tensors have shapes alone (FakeTensorMode), as where the memory of a training is foreseen."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None


def hides_values() -> bool:
    """True if no branch may depend on the values of tensors."""
    return is_transformed() or is_recorded() or has_no_values()
