"""Every loss against the quantity that it stands for."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch.autograd.functional import jacobian

from pyro_riemann.autoencoders import InverseKernel, InverseVolumeSampler, inverse_multiquadric_mmd, make_autoencoder
from pyro_riemann.autoencoders._variational import normal_log_density
from tests.autoencoders._tools import log_evidence, small

DRAWS = 40_000


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------------------------------------ evidence


@pytest.mark.parametrize("name", ["hvae", "rhvae"])
def test_hamiltonian_bound_is_an_unbiased_weight(name: str) -> None:
    """exp(bound) of one draw has the mean p(x), whatever the flow: the change of variables is complete."""
    settings = {} if name == "hvae" else {"iterations": 12, "temperature": 2.0}
    model = small(name, step_size=0.1, **settings).eval()
    x = images()
    exact = log_evidence(model, x, normal_log_density)
    for index, row in enumerate(x):
        # a metric from the minibatch: repeated rows would change it, so the flow is called with a kernel of its own
        weights = _weights(model, name, row)
        mean, error = weights.mean(), weights.std() / math.sqrt(DRAWS)
        assert abs(float(mean - exact[index].exp())) < 4 * float(error)
        assert float(error) < 0.03 * float(mean), "the check must be able to fail"


def _weights(model, name: str, row: torch.Tensor) -> torch.Tensor:
    rows = row.expand(DRAWS, 4)
    if name == "hvae":
        with torch.no_grad():
            return model.elbo(rows).exp()
    centres = model.encoder(images(5))[0].detach()
    kernel = InverseKernel(centres, model.matrices(images(5)).detach(), model.temperature, model.regularization)
    model.batch_kernel = lambda x, loc: kernel
    with torch.no_grad():
        return model.elbo(rows).exp()


@pytest.mark.parametrize("name", ["vae", "vamp"])
def test_variational_loss_is_the_negative_elbo(name: str) -> None:
    model = small(name).eval()
    x = images(4)
    if name == "vamp":
        model.prepare(x)
    with torch.no_grad():
        losses = torch.stack([model.loss(x) for _ in range(500)])
        loc, scale = model.encoder(x)
        z = loc + scale * torch.randn(4000, 4, 2, dtype=x.dtype)
        reconstruction = model.decoder.log_likelihood(x, z)
        ratio = dist.Normal(loc, scale).to_event(1).log_prob(z) - model.pair.prior_distribution().log_prob(z)
        bound = (reconstruction - ratio).mean(-1)
    error = math.hypot(float(losses.std()) / 500**0.5, float(bound.std()) / 4000**0.5)
    assert abs(float(losses.mean() + bound.mean())) < 4 * error
    evidence = log_evidence(model, x, model.pair.prior_distribution().log_prob)
    assert float(bound.mean()) < float(evidence.mean())


def test_pair_trains_by_plain_pyro() -> None:
    """The model/guide pair is the same model: SVI's loss is the loss of `fit`, times the number of rows."""
    import pyro
    from pyro.infer import SVI, TraceMeanField_ELBO

    model = small("vae").eval()
    x = images(4)
    svi = SVI(model.pair.model, model.pair.guide, pyro.optim.Adam({"lr": 1e-3}), TraceMeanField_ELBO())
    torch.manual_seed(0)
    whole = svi.evaluate_loss(x)
    torch.manual_seed(0)
    assert model.loss(x).item() == pytest.approx(whole / 4, rel=1e-12)


# ------------------------------------------------------------------------------------ flows


@pytest.mark.parametrize("name", ["hvae", "rhvae"])
def test_flow_has_the_determinant_of_the_tempering(name: str) -> None:
    """Leapfrog steps preserve volume; only the momentum is shrunk, by sqrt(beta_0) in every coordinate."""
    settings = {} if name == "hvae" else {"iterations": 30, "temperature": 2.0}
    model = small(name, step_size=0.1, inverse_temperature=0.4, **settings).eval()
    x = images(1)
    kernel = model.batch_kernel(images(5), model.encoder(images(5))[0]) if name == "rhvae" else None

    def flow(state: torch.Tensor) -> torch.Tensor:
        z, v = state[None].split(2, -1)
        if kernel is None:
            after = model.flow(x, z, v, create_graph=True)
        else:
            after = model.riemannian_flow(x, z, v, kernel, create_graph=True)
        return torch.cat(after[:2], -1)[0]

    start = torch.tensor([0.3, -0.5, 0.7, 0.2], dtype=torch.float64, requires_grad=True)
    logdet = torch.linalg.slogdet(jacobian(flow, start)).logabsdet
    assert float(logdet) == pytest.approx(math.log(0.4), abs=1e-6)  # d / 2 log beta_0, d = 2


def kernel(dtype: torch.dtype = torch.float64) -> InverseKernel:
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(6, 2, 2, generator=generator, dtype=dtype).tril()
    matrices = factors @ factors.mT + 0.3 * torch.eye(2, dtype=dtype)
    return InverseKernel(torch.randn(6, 2, generator=generator, dtype=dtype), matrices, 1.1, 0.05)


def test_kernel_gradients_are_those_of_autograd() -> None:
    inverse = kernel()
    z = torch.randn(20, 2, dtype=torch.float64, requires_grad=True)
    v = torch.randn(20, 2, dtype=torch.float64)
    half, gradient = inverse.half_logdet_gradient(z)
    value = 0.5 * torch.linalg.slogdet(inverse(z)).logabsdet
    torch.testing.assert_close(half, value)
    torch.testing.assert_close(gradient, torch.autograd.grad(value.sum(), z)[0])
    kinetic = 0.5 * torch.einsum("ni,nij,nj->n", v, inverse(z), v)
    torch.testing.assert_close(inverse.kinetic_gradient(z, v), torch.autograd.grad(kinetic.sum(), z)[0])


def test_volume_sampler_follows_the_density() -> None:
    """Shares of cells at d = 2 against quadrature of sqrt(det H), the floor left out by a small one."""
    inverse = kernel()
    inverse.regularization = 1e-6
    sampler = InverseVolumeSampler(inverse, oversampling=40)
    draws = sampler.sample(4000)
    assert 0.05 < sampler.efficiency <= 1
    cells, bound = 300, 5.0
    axis = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells * 2 * bound - bound
    z = torch.cartesian_prod(axis, axis)
    weight = inverse.half_logdet_gradient(z)[0].softmax(0)
    quadrant = (z > z.new_tensor([0.2, 0.1])).long() @ torch.tensor([2, 1])
    expected = torch.zeros(4, dtype=torch.float64).index_add_(0, quadrant, weight)
    seen = torch.bincount((draws > z.new_tensor([0.2, 0.1])).long() @ torch.tensor([2, 1]), minlength=4) / 4000
    # resampling from 160,000 proposals at this efficiency adds little to the multinomial error
    error = (expected * (1 - expected) / 4000 * (1 + 4000 / (160_000 * sampler.efficiency))).sqrt()
    assert bool(((seen - expected).abs() < 4 * error).all())


def test_isolated_kernels_need_no_weights() -> None:
    """Far apart, the volume is the proposal exactly."""
    centres = torch.tensor([[-20.0, 0.0], [20.0, 0.0], [0.0, 30.0]], dtype=torch.float64)
    inverse = InverseKernel(centres, kernel().matrices[:3], 1.0, 1e-12)
    sampler = InverseVolumeSampler(inverse)
    sampler.sample(500)
    assert sampler.efficiency == pytest.approx(1, abs=1e-3)


# ------------------------------------------------------------------------------------ penalties


def test_gradient_penalty_is_the_norm_of_the_decoders_jacobian() -> None:
    model = small("rae-gp").eval()
    z = torch.randn(3, 2, dtype=torch.float64)
    exact = torch.stack([jacobian(model.decoder, row).square().sum() for row in z])
    with torch.no_grad():
        estimates = torch.stack([model.squared_jacobian(z) for _ in range(3000)])
    error = estimates.std(0) / 3000**0.5
    assert bool(((estimates.mean(0) - exact).abs() < 4 * error).all())


def test_gradient_penalty_reaches_the_weights() -> None:
    model = small("rae-gp", weight=1.0)
    first = model.decoder.body[0].weight
    (gradient,) = torch.autograd.grad(model.penalty(torch.randn(5, 2, dtype=torch.float64)), first)
    assert float(gradient.abs().max()) > 0


def test_code_penalty_is_half_the_square() -> None:
    model, plain = small("rae", code_weight=0.3).eval(), small("ae").eval()
    x = images(5)
    squares = model.encode(x).square().sum(-1).mean()
    assert model.loss(x).item() == pytest.approx(float((plain.loss(x) + 0.15 * squares).detach()), rel=1e-12)


def test_mmd_is_the_double_sum() -> None:
    x, y = torch.randn(6, 2), torch.randn(4, 2) + 1

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return sum(4 * s / (4 * s + float((a - b).square().sum())) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))

    within_x = sum(k(x[i], x[j]) for i in range(6) for j in range(6) if i != j) / 30
    within_y = sum(k(y[i], y[j]) for i in range(4) for j in range(4) if i != j) / 12
    between = sum(k(a, b) for a in x for b in y) / 24
    assert float(inverse_multiquadric_mmd(x, y)) == pytest.approx(within_x + within_y - 2 * between, abs=1e-5)


def test_mmd_of_equal_laws_is_zero_on_average() -> None:
    values = torch.stack([inverse_multiquadric_mmd(torch.randn(30, 3), torch.randn(30, 3)) for _ in range(400)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 20
    assert float(values.min()) < 0, "an unbiased estimate of zero takes both signs"


def test_pseudo_inputs_start_at_data() -> None:
    model = make_autoencoder("vamp", (2, 2), 2, hidden=(8,), num_components=5)
    data = torch.rand(20, 4)
    model.prepare(data)
    assert bool((torch.cdist(model.pseudo_inputs, data).amin(-1) == 0).all())
