"""The losses under torch.compile, and on a GPU where there is one."""

import pytest
import torch

from support.loss_cases import build, each_loss, labelled_batch


@each_loss
def test_compiles_without_graph_breaks(case):
    logits, target = labelled_batch(0, 2, 3, 24, 28, stride=2)
    x, t = torch.tensor(logits, dtype=torch.float32, requires_grad=True), torch.tensor(target)
    loss = build(case, 3)
    expected = loss(x, t)
    (expected_grad,) = torch.autograd.grad(expected, x)
    torch._dynamo.reset()
    value = torch.compile(loss, fullgraph=True, backend="aot_eager")(x, t)
    (grad,) = torch.autograd.grad(value, x)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(grad, expected_grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "device",
    [
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")),
        pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs MPS")),
    ],
)
@each_loss
def test_other_devices_give_what_the_cpu_gives(case, device):
    logits, target = labelled_batch(0, 2, 3, 64, 80, stride=2)
    x, t = torch.tensor(logits, dtype=torch.float32, requires_grad=True), torch.tensor(target)
    there = x.detach().to(device).requires_grad_()
    loss = build(case, 3)
    value, value_there = loss(x, t), loss(there, t.to(device))
    value.backward()
    value_there.backward()
    assert value_there.item() == pytest.approx(value.item(), rel=1e-5)
    assert (there.grad.cpu() - x.grad).norm() <= 1e-4 * x.grad.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@each_loss
def test_cuda_label_that_is_no_class_gives_nan_or_raises(case):
    logits, target = labelled_batch(0, 1, 3, 24, 28)
    x, t = torch.tensor(logits, device="cuda"), torch.tensor(target, device="cuda")
    t[0, 3, 4] = 37
    assert build(case, 3)(x, t).isnan()
    with pytest.raises(ValueError, match="target holds 37"):
        build(case, 3, check_target=True)(x, t)
