"""The model/guide pair: exact bounds on a linear model, every prior with every posterior, Pyro's own machinery."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, JitTrace_ELBO, Predictive, Trace_ELBO
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from pyro_riemann import ConstantMetric, EuclideanMetric, PullbackMetric, RiemannianMetric
from pyro_riemann.vae import (
    VAE,
    DecoderMetric,
    Encoder,
    GaussianDecoder,
    elbo_terms,
    evaluate,
    importance_log_likelihood,
    make_vae,
    prior_mass,
    set_phase,
    solver_settings,
)
from tests.vae._models import codes, curve_data, linear_vae, phase_two_vae, small_vae

PRIORS = ("normal", "vamp", "heat_kernel", "uniform")
POSTERIORS = ("normal", "wrapped_normal", "heat_kernel")


def test_elbo_of_a_linear_model_is_the_closed_form():
    vae, weight, noise = linear_vae()
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loc, scale = vae.encoder(x)
    residual = x - vae.decoder.mean(loc)
    expected_square = residual.square().sum(-1) + (scale.square() * weight.square().sum(0)).sum(-1)
    reconstruction = -0.5 * expected_square / noise**2 - 2.5 * torch.log(2 * math.pi * noise**2)
    kl = 0.5 * (scale.square() + loc.square() - 1 - 2 * scale.log()).sum(-1)
    draws = [elbo_terms(vae, x, 2000, seed=seed) for seed in range(10)]
    for exact, values in ((reconstruction, [t.reconstruction for t in draws]), (kl, [t.kl for t in draws])):
        estimate = torch.stack(values)
        error = estimate.std(0) / math.sqrt(len(values))
        assert bool(((estimate.mean(0) - exact).abs() < 4 * error).all())


def test_importance_weighting_reaches_the_exact_likelihood():
    vae, weight, noise = linear_vae()
    x = vae.decoder.mean(torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))).detach()
    with torch.no_grad():  # the exact posterior, a little widened
        precision = weight.mT @ weight / noise**2 + torch.eye(2)
        covariance = torch.linalg.inv(precision)
        gain = covariance @ weight.mT / noise**2
        vae.encoder.loc[0].weight.copy_(gain)
        vae.encoder.loc[0].bias.copy_(-gain @ vae.decoder.mean[0].bias)
        wide = 1.2 * covariance.diagonal().sqrt()
        vae.encoder.spread[0].bias.copy_((wide - vae.encoder.min_scale).expm1().log())
    covariance = weight @ weight.mT + noise**2 * torch.eye(5)
    exact = torch.distributions.MultivariateNormal(vae.decoder.mean[0].bias, covariance).log_prob(x).detach()
    few, many = (importance_log_likelihood(vae, x, count, seed=1) for count in (5, 20_000))
    torch.testing.assert_close(many, exact, rtol=0, atol=0.02)
    assert bool((elbo_terms(vae, x, 5000).elbo < exact).all())
    assert float((few - exact).abs().mean()) > float((many - exact).abs().mean())

    def proposal(rows: torch.Tensor) -> dist.MultivariateNormal:
        return dist.MultivariateNormal(vae.encode(rows), 1.3 * torch.linalg.inv(precision).detach())

    vae.encoder.spread[0].bias.data.sub_(3)  # a posterior that would not do
    other = importance_log_likelihood(vae, x, 20_000, proposal=proposal, seed=1)
    torch.testing.assert_close(other, exact, rtol=0, atol=0.02)


def test_elbo_is_what_pyro_computes():
    data = curve_data(20)
    vae = phase_two_vae(curve_data(), "normal", "normal")
    with pyro.get_param_store().scope(), torch.no_grad():
        ours = elbo_terms(vae, data, 4000).elbo.sum()
        losses = [
            -Trace_ELBO(num_particles=500, vectorize_particles=True).loss(vae.model, vae.guide, data) for _ in range(8)
        ]
    theirs = torch.tensor(losses)
    assert abs(float(ours - theirs.mean())) < 5 * float(theirs.std()) / math.sqrt(4)


def test_subsampling_scales_the_elbo():
    data = curve_data(20)
    vae = phase_two_vae(curve_data(), "normal", "normal")
    torch.manual_seed(0)
    plain = Trace_ELBO().loss(vae.model, vae.guide, data)
    torch.manual_seed(0)
    scaled = Trace_ELBO().loss(vae.model, vae.guide, data, size=200)
    assert scaled == pytest.approx(10 * plain, rel=1e-9)


def test_kl_weight_scales_prior_and_posterior_alone():
    data = curve_data(5)
    vae = phase_two_vae(curve_data(), "normal", "normal")
    trace = poutine.trace(vae.model).get_trace(data, kl_weight=0.25)
    trace.compute_log_prob()
    assert trace.nodes["z"]["scale"] == 0.25
    assert trace.nodes["x"]["scale"] == 1.0
    assert poutine.trace(vae.guide).get_trace(data, kl_weight=0.25).nodes["z"]["scale"] == 0.25


def flat_vae(prior: str, posterior: str, metric: RiemannianMetric) -> VAE:
    return make_vae(6, 2, prior, posterior, metric, hidden=(12,), num_centers=4, seed=3).double()


@pytest.mark.parametrize("posterior", ["wrapped_normal", "heat_kernel"])
def test_flat_metric_gives_the_numbers_of_the_normal_prior(posterior: str):
    data = curve_data(10)
    riemannian = flat_vae("heat_kernel", posterior, EuclideanMetric(2).double())
    z = torch.randn(10, 2, dtype=torch.float64)
    normal = flat_vae("normal", posterior, EuclideanMetric(2).double())
    normal.load_state_dict(riemannian.state_dict(), strict=False)
    prior, gaussian = riemannian.prior_distribution(), normal.prior_distribution()
    torch.testing.assert_close(prior.log_prob(z), gaussian.log_prob(z), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(elbo_terms(riemannian, data).elbo, elbo_terms(normal, data).elbo, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(prior_mass(riemannian).value, torch.zeros((), dtype=torch.float64), atol=1e-8, rtol=0)


@pytest.mark.parametrize("posterior", ["wrapped_normal", "heat_kernel"])
def test_posterior_keeps_its_volume_when_the_units_change(posterior: str):
    matrix = torch.tensor([[4.0, 1.0], [1.0, 9.0]], dtype=torch.float64)
    vae = flat_vae("heat_kernel", posterior, ConstantMetric(matrix))
    x = curve_data(5)
    _, scale = vae.encoder(x)
    covariance = vae.posterior(x).time[:, None, None] * torch.linalg.inv(matrix)
    torch.testing.assert_close(torch.linalg.det(covariance), scale[:, 0] ** 4)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("prior", PRIORS)
def test_every_pair_takes_steps_that_lower_the_loss(prior: str, posterior: str):
    data = curve_data(60)
    vae = phase_two_vae(data, prior, posterior, "grid" if "normal" not in (prior, posterior) else "fixed")
    set_phase(vae, 2, ("precision", "prior"))
    batch, losses = data[:16], []
    with pyro.get_param_store().scope():
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
        for _ in range(8):
            torch.manual_seed(0)  # the same noise: the loss is a function of the parameters
            losses.append(svi.step(batch))
    assert all(math.isfinite(loss) for loss in losses)
    assert min(losses[4:]) < losses[0]


@pytest.mark.parametrize("metric", ["fixed", "learned"])
def test_metric_gradients_reach_the_decoder_only_if_learned(metric: str):
    data = curve_data(40)
    vae = phase_two_vae(data, "heat_kernel", "normal", metric)
    vae.decoder.mean.requires_grad_(True)
    vae.prior_distribution().log_prob(codes(vae, data[:5])).sum().backward()
    assert (vae.decoder.mean[0].weight.grad is not None) == (metric == "learned")
    assert vae.prior.loc.grad is not None
    assert vae.prior.log_time.grad is not None


def test_grid_and_pullback_agree():
    data = curve_data(60)
    fixed = phase_two_vae(data, "heat_kernel", "normal", "fixed")
    grid = phase_two_vae(data, "heat_kernel", "normal", "grid", grid_resolution=80)
    grid.load_state_dict(fixed.state_dict(), strict=False)
    grid.refresh_metric(codes(fixed, data))
    z = codes(fixed, data[:10])
    with solver_settings(grid), solver_settings(fixed), torch.no_grad():
        gap = grid.prior_distribution().log_prob(z) - fixed.prior_distribution().log_prob(z)
    # a pair may fall into another local minimum from the straight line
    assert float(gap.abs().sort().values[8]) < 0.05


def test_vamp_prior_is_normalised():
    vae = small_vae("vamp")
    side = torch.linspace(-12, 12, 600, dtype=torch.float64)
    nodes = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1)
    mass = vae.prior_distribution().log_prob(nodes).exp().sum() * (24 / 599) ** 2
    torch.testing.assert_close(mass, torch.ones((), dtype=torch.float64), rtol=1e-3, atol=0)


@pytest.mark.parametrize("prior", ["normal", "vamp", "heat_kernel"])
def test_predictive_samples_from_the_model(prior: str):
    vae = phase_two_vae(curve_data(), prior, "normal", "grid")
    if prior == "heat_kernel":  # of a network that is hardly trained the fitted time is very long
        vae.prior.log_time.data.fill_(-1.0)
    draws = Predictive(vae.model, num_samples=3)(None, size=7)
    assert draws["x"].shape == (3, 7, 6)
    assert bool(torch.isfinite(draws["x"]).all())


@pytest.mark.slow
def test_evaluation_adds_up_and_reports_the_mass():
    data = curve_data(60)
    vae = phase_two_vae(data, "heat_kernel", "wrapped_normal", "grid")
    report = evaluate(vae, data[:20], num_importance=5, num_pairs=10)
    assert report["elbo"] == report["reconstruction"] - report["kl"]
    assert report["elbo_normalized"] == report["elbo"] - report["log_mass"]
    assert 0 <= report["converged_geodesics"] <= 1
    terms = elbo_terms(vae, data[:20])
    assert torch.equal(terms.elbo, terms.reconstruction - terms.kl)


@torch.no_grad()
def mass_by_shortest_paths(vae: VAE, data: torch.Tensor, count: int = 100) -> float:
    """Log mass of the heat-kernel prior, from Dijkstra's paths on a grid through the decoder itself and no metric."""
    where = codes(vae, data)
    margin = 2.0 + 0.3 * (where.amax(0) - where.amin(0))
    loc, time, low, high = vae.prior.loc, vae.prior.time, where.amin(0) - margin, where.amax(0) + margin
    axes = [a + (b - a) * (torch.arange(count) + 0.5) / count for a, b in zip(low, high, strict=True)]
    z = torch.cat([torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2), loc[None]])
    number = torch.arange(count * count).reshape(count, count)
    first, second = [], []
    for a, b in itertools.product(range(5), range(-4, 5)):
        if math.gcd(a, abs(b)) == 1 and (a, b) != (0, -1):
            first.append(number[: count - a, max(0, -b) : count - max(0, b)].flatten())
            second.append(number[a:, max(0, b) : count + min(0, b)].flatten())
    near = ((z[:-1] - loc) / (high - low)).norm(dim=-1).argsort()[:60]
    edge = torch.stack([torch.cat([*first, near]), torch.cat([*second, torch.full_like(near, count * count)])])
    ends = z[edge]
    images = [torch.cat(vae.decoder(torch.lerp(ends[0], ends[1], share)), -1) for share in (0.0, 0.5, 1.0)]
    length = sum((one - other).norm(dim=-1) for one, other in itertools.pairwise(images))
    graph = coo_matrix((length.numpy(), edge.numpy()), (len(z), len(z)))
    distance = torch.as_tensor(dijkstra(graph.tocsr(), directed=False, indices=len(z) - 1))[:-1]
    log_density = 0.5 * PullbackMetric(vae.decoder, 2).logdet(z[:-1]) - 0.5 * distance.square() / time
    return float(log_density.logsumexp(0) + ((high - low) / count).log().sum() - (2 * math.pi * time).log())


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["fixed", "grid"])
def test_mass_of_the_prior_agrees_with_quadrature_of_its_density(metric: str):
    vae = phase_two_vae(curve_data(60), "heat_kernel", "normal", metric)
    value, error = prior_mass(vae)
    assert float(error) < 0.1
    assert float(value) == pytest.approx(mass_by_shortest_paths(vae, curve_data(60)), abs=0.02 + 2 * float(error))
    assert torch.equal(value, vae.prior_distribution().log_normalizer().value)


def test_jit_elbo():
    data = curve_data(40)
    vae = phase_two_vae(data, "heat_kernel", "normal", "grid")
    with pyro.get_param_store().scope():
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), JitTrace_ELBO())
        losses = [svi.step(data[:8]) for _ in range(3)]
    assert all(math.isfinite(loss) for loss in losses)


def test_nothing_leaks_through_the_parameter_store():
    data = curve_data(10)
    first, second = small_vae(seed=1), small_vae(seed=2)
    with pyro.get_param_store().scope():
        for vae in (first, second):
            before = vae.decoder.mean[0].weight.clone()
            vae.model(data)
            assert torch.equal(vae.decoder.mean[0].weight, before)
        stored = dict(pyro.get_param_store().named_parameters())
        assert stored["vae.decoder.mean.0.weight"] is second.decoder.mean[0].weight


def test_state_dict_round_trip_keeps_the_densities():
    data = curve_data(60)
    vae = phase_two_vae(data, "heat_kernel", "normal", "grid")
    other = small_vae("heat_kernel", "normal", "grid", seed=9)
    other.load_state_dict(vae.state_dict())
    z = codes(vae, data[:5])
    torch.testing.assert_close(other.prior_distribution().log_prob(z), vae.prior_distribution().log_prob(z))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small_vae(posterior="laplace"), "posterior"),
        (lambda: small_vae(prior="cauchy"), "prior"),
        (lambda: small_vae(metric="curved"), "metric"),
        (lambda: VAE(Encoder(6, 2), GaussianDecoder(2, 6)), "scale_dim"),
        (lambda: VAE(Encoder(6, 3, scale_dim=1), GaussianDecoder(2, 6)), "latent dimension"),
        (lambda: VAE(Encoder(7, 2, scale_dim=1), GaussianDecoder(2, 6)), "the same spaces"),
        (lambda: VAE(Encoder(6, 4, scale_dim=1), GaussianDecoder(4, 6), metric=DecoderMetric(resolution=64)), "d <= 3"),
        (lambda: VAE(Encoder(6, 2, scale_dim=1), GaussianDecoder(2, 6), metric=EuclideanMetric(3)), "dimension"),
        (lambda: DecoderMetric(frozen=False, resolution=64), "needs `frozen=True`"),
        (lambda: small_vae().model(torch.zeros(3, 5)), "shape"),
        (lambda: small_vae().model(torch.full((3, 6), float("nan"))), "NaN"),
        (lambda: small_vae().model(torch.zeros(3, 6).double(), size=2), "size"),
        (lambda: small_vae().model(None), "size"),
        (lambda: elbo_terms(small_vae(), torch.zeros(3, 6), 0), "num_samples"),
    ],
)
def test_bad_input(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("key", "part"),
    [("encoder", torch.nn.Linear(6, 2)), ("prior", "normal"), ("posterior", "normal"), ("metric", "fixed")],
)
def test_a_part_that_is_none_is_refused(key: str, part: object):
    parts: dict[str, Any] = {"encoder": Encoder(6, 2, scale_dim=1), "decoder": GaussianDecoder(2, 6)}
    if key == "encoder":
        part.latent_dim = 2  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=f"`{key}` must be a `vae"):
        VAE(**{**parts, key: part})
