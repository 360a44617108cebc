"""Linear algebra of region covariances: for every region size and number of threads, and what is not finite."""

import math

import pytest
import torch

from rmiseg.functional import RMI_ALPHA
from rmiseg.kernels import regions
from rmiseg.losses import RMILoss


@pytest.fixture(params=[1, 2, 4])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def covariance_of(maps, d, positions):
    generator = torch.Generator().manual_seed(d)
    z = torch.rand(maps, 2 * d, positions, generator=generator, dtype=torch.float64)
    z[:, d:] = (z[:, :d] > 0.5).double()
    z = z - z.mean(dim=2, keepdim=True)
    return z @ z.mT


@pytest.mark.parametrize("region_size", range(1, 11))
def test_weights_are_those_of_the_inverses(region_size, threads):
    d = region_size**2
    covariance = covariance_of(4 if region_size < 10 else 42, d, 300)
    weights = regions.region_weights(regions.region_factor(covariance, RMI_ALPHA))
    for g, found in zip(covariance[:2], weights):
        identity = torch.eye(2 * d, dtype=torch.float64)
        expected = torch.cholesky_inverse(torch.linalg.cholesky(g + RMI_ALPHA * identity))[:d]
        own = torch.linalg.cholesky(g[:d, :d] + RMI_ALPHA * identity[:d, :d])
        expected[:, :d] -= torch.cholesky_inverse(own)
        assert (d * found - expected).norm() <= 1e-9 * expected.norm()
    assert weights.isfinite().all()


@pytest.mark.parametrize("implementation", ["auto", "chunked", "plain"])
@pytest.mark.parametrize("region_size", range(1, 11))
def test_no_region_size_raises_with_any_number_of_threads(region_size, implementation, threads):
    side = 32 if region_size < 10 else 40
    logits = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.randint(0, 3, (1, side, side), generator=torch.Generator().manual_seed(1))
    value = RMILoss(3, region_size=region_size, pool_size=2, implementation=implementation)(logits, target)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_nan_in_its_own_map(bad):
    covariance = covariance_of(3, 9, 100)
    expected = regions.rmi_of_covariance(covariance, RMI_ALPHA)
    covariance[1, 2, 3] = covariance[1, 3, 2] = bad
    factor = regions.region_factor(covariance, RMI_ALPHA)
    assert torch.equal(regions.rmi_of_factor(factor)[[0, 2]], expected[[0, 2]])
    assert regions.rmi_of_factor(factor)[1].isnan()
    weights = regions.region_weights(factor)
    assert weights[[0, 2]].isfinite().all()
    assert not weights[1].isfinite().any()


@pytest.mark.parametrize("d", [1, 4, 9, 27])
@pytest.mark.parametrize("alpha", [RMI_ALPHA, 5.0])
def test_perfect_rmi_is_rmi_where_both_are_the_same(d, alpha):
    labels = covariance_of(3, d, 80)[:, d:, d:]
    labels[2] = 0  # a class that is absent
    both = torch.cat([torch.cat([labels, labels], dim=2)] * 2, dim=1)
    found = regions.perfect_rmi(both, alpha)
    assert torch.allclose(found, regions.rmi_of_covariance(both, alpha), rtol=1e-6, atol=1e-8)
    assert found[2] == pytest.approx(0.5 * math.log(alpha))
    assert (found <= 0.5 * math.log(2 * alpha) + 1e-12).all()
