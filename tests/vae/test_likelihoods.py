"""Likelihoods against scipy, bounds against evidence that is integrated, data that no law can give refused by name."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

from pyro_riemann import PullbackMetric
from pyro_riemann.autoencoders import MODELS, FitConfig, make_autoencoder
from pyro_riemann.vae import (
    VAE,
    BernoulliLikelihood,
    CategoricalLikelihood,
    Decoder,
    Encoder,
    GaussianLikelihood,
    Likelihood,
    NegativeBinomialLikelihood,
    NormalPosterior,
    NormalPrior,
    PoissonLikelihood,
    TrainingConfig,
    elbo_terms,
    importance_log_likelihood,
    make_vae,
    mlp,
    train,
)

F64 = torch.float64
D = 3
OUTPUT = torch.tensor([[-1.2, 0.3, 2.0], [0.7, -0.4, 0.1]], dtype=F64)
TOTAL_COUNT = torch.tensor([0.7, 3.0, 40.0], dtype=F64)


def negative_binomial(**settings: Any) -> NegativeBinomialLikelihood:
    return NegativeBinomialLikelihood(TOTAL_COUNT, **settings).double()


def softmax(output: Tensor) -> np.ndarray[Any, Any]:
    exponential = np.exp(output.numpy())
    return exponential / exponential.sum(-1, keepdims=True)


SIX = torch.cat([OUTPUT, -OUTPUT], -1)  # three categories of two entries
# likelihood, outputs, a datum for each row of them, and log densities of its entries by scipy
CASES: dict[str, tuple[Likelihood, Tensor, Tensor, Any]] = {
    "gaussian": (
        GaussianLikelihood(0.3),
        OUTPUT,
        OUTPUT + 0.4,
        lambda x: stats.norm.logpdf(x, OUTPUT, 0.3),
    ),
    "gaussian, sigmoid": (
        GaussianLikelihood(0.3, learn_scale=False, link="sigmoid"),
        OUTPUT,
        torch.full((2, D), 0.4, dtype=F64),
        lambda x: stats.norm.logpdf(x, 1 / (1 + np.exp(-OUTPUT.numpy())), 0.3),
    ),
    "bernoulli": (
        BernoulliLikelihood(),
        OUTPUT,
        torch.tensor([[0.0, 1, 1], [1, 0, 0]], dtype=F64),
        lambda x: stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-OUTPUT.numpy()))),
    ),
    "categorical": (
        CategoricalLikelihood(3),
        SIX,
        torch.tensor([[0.0, 2], [1, 1]], dtype=F64),
        lambda x: np.log(np.take_along_axis(softmax(SIX.reshape(2, 2, 3)), x.astype(int)[..., None], -1))[..., 0],
    ),
    "poisson": (
        PoissonLikelihood(),
        OUTPUT,
        torch.tensor([[0.0, 4, 9], [1, 0, 2]], dtype=F64),
        lambda x: stats.poisson.logpmf(x, OUTPUT.exp()),
    ),
    "negative binomial": (
        negative_binomial(),
        OUTPUT,
        torch.tensor([[0.0, 4, 9], [1, 0, 2]], dtype=F64),
        lambda x: stats.nbinom.logpmf(x, TOTAL_COUNT, TOTAL_COUNT / (TOTAL_COUNT + OUTPUT.exp())),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_density_is_that_of_scipy(name: str) -> None:
    likelihood, output, x, expected = copy.deepcopy(CASES[name])
    law = likelihood.double().distribution(output)
    assert law.batch_shape == (2,)
    assert law.event_shape == x.shape[1:]
    values = torch.as_tensor(expected(x.numpy()).sum(-1))
    torch.testing.assert_close(law.log_prob(x).detach(), values, rtol=1e-6, atol=1e-6)  # scales are kept in float32
    assert likelihood.check("x", x) is x
    if name != "categorical":
        torch.testing.assert_close(likelihood.mean(output), law.mean)


@pytest.mark.parametrize("make", [PoissonLikelihood, negative_binomial])
def test_exposure_multiplies_the_mean_and_scales_nothing_else(make: Any) -> None:
    likelihood = make(exposure="total")
    x = CASES["poisson"][2]
    exposure = likelihood.exposure(x)
    assert torch.equal(exposure, torch.tensor([[13.0], [3]], dtype=F64))
    law = likelihood.distribution(OUTPUT, exposure)
    torch.testing.assert_close(law.mean, exposure * OUTPUT.exp())
    torch.testing.assert_close(law.log_prob(x), make().distribution(OUTPUT + exposure.log()).log_prob(x))
    likelihood.standardize(x)
    torch.testing.assert_close(likelihood.distribution(OUTPUT).mean, 8 * OUTPUT.exp())  # the mean of both


def test_many_dispersions_are_the_poisson_law() -> None:
    x = CASES["poisson"][2]
    law = NegativeBinomialLikelihood(1e7, learn_total_count=False).double().distribution(OUTPUT)
    torch.testing.assert_close(law.log_prob(x), PoissonLikelihood().distribution(OUTPUT).log_prob(x), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_the_start_is_the_best_law_without_a_code(name: str) -> None:
    """At the outputs of `standardize` no change of the output common to all data raises the likelihood."""
    likelihood, output, _, _ = copy.deepcopy(CASES[name])
    torch.manual_seed(0)
    with torch.no_grad():
        data = likelihood.distribution(output[:1]).sample((400,))[:, 0]
    if name == "gaussian, sigmoid":
        data = data.clamp(0, 1)
    start, unit = likelihood.standardize(likelihood.check("data", data))
    assert unit > 0
    start = start.clone().requires_grad_()
    likelihood.distribution(start.expand(400, -1)).log_prob(data).mean().backward()
    # categories have a pseudo-count, and logits of probabilities keep a margin
    assert float(start.grad.abs().max()) < 0.02  # type: ignore[union-attr]


REFUSED: list[tuple[Likelihood, float, str]] = [
    (GaussianLikelihood(link="sigmoid"), 1.5, r"such as 1.5: a sigmoid needs data in \[0, 1\]"),
    (BernoulliLikelihood(), -0.1, r"such as -0.1: .* nothing outside \[0, 1\]"),
    (BernoulliLikelihood(), 0.5, r"such as 0.5: a Bernoulli likelihood needs zeros and ones: binarise"),
    (CategoricalLikelihood(3), 3.0, "such as 3: a categorical likelihood needs whole numbers from 0 to 2"),
    (PoissonLikelihood(), -2.0, "such as -2: a likelihood of counts needs whole numbers"),
    (NegativeBinomialLikelihood(), 0.5, "such as 0.5: a likelihood of counts needs whole numbers"),
    (PoissonLikelihood(exposure="total"), 0.0, "such as 0: the exposure of a datum, its total count, must"),
]


@pytest.mark.parametrize(("likelihood", "value", "match"), REFUSED)
def test_data_that_no_law_gives_are_refused_by_name(likelihood: Likelihood, value: float, match: str) -> None:
    data = torch.ones(10, D)
    data[4] = value
    vae = make_vae(D, 1, "normal", "normal", likelihood=likelihood, hidden=(4,), seed=0)
    for call in (lambda: train(vae, data, progress=False), lambda: train(vae, torch.ones(9, D), data, progress=False)):
        with pytest.raises(ValueError, match=rf"`(data|validation)` has \d+ of \d+ values {match}"):
            call()
    with pytest.raises(ValueError, match=f"`x` has .* {match}"):
        vae.model(data)
    if not isinstance(likelihood, CategoricalLikelihood):
        with pytest.raises(ValueError, match=match):
            make_autoencoder("ae", (1, D), 1, hidden=(4,), likelihood=likelihood).fit(data, progress=False)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: GaussianLikelihood(0.0), "scale"),
        (lambda: GaussianLikelihood(link="tanh"), "link"),
        (lambda: CategoricalLikelihood(1), "num_categories"),
        (lambda: NegativeBinomialLikelihood(-1.0), "total_count"),
        (lambda: PoissonLikelihood("size"), "exposure"),
        (lambda: make_vae(3, likelihood="laplace"), "likelihood"),
        (lambda: make_autoencoder("vae", (1, 3), 2, likelihood=CategoricalLikelihood(2)), "3 outputs, one a pixel"),
        (
            lambda: Decoder(nn.Linear(1, 2), 1, 3, PoissonLikelihood())(torch.zeros(4, 1)),
            "must give 3 outputs a code",
        ),
    ],
)
def test_bad_arguments(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


# ------------------------------------------------------------------------------------ evidence


def log_evidence(vae: VAE, row: Tensor) -> float:
    """log p(x) at d = 1 by adaptive quadrature of scipy."""

    def joint(z: float) -> float:
        code = torch.tensor([z], dtype=F64)
        with torch.no_grad():
            value = vae.observation(code, row).log_prob(row) - 0.5 * z**2 - 0.5 * math.log(2 * math.pi)
        return math.exp(float(value) + 20)

    return math.log(integrate.quad(joint, -9, 9, epsabs=0, epsrel=1e-8, limit=300, points=[-2, 0, 2])[0]) - 20


BOUNDED: dict[str, Likelihood] = {
    "gaussian": GaussianLikelihood(),
    "bernoulli": BernoulliLikelihood(),
    "categorical": CategoricalLikelihood(3),
    "poisson": PoissonLikelihood(exposure="total"),
    "negative binomial": NegativeBinomialLikelihood(torch.tensor([2.0, 5.0, 9.0])),
}


def sample_data(name: str, count: int = 200) -> Tensor:
    """Data with one hidden number."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(count, 1, generator=generator, dtype=F64) + torch.tensor([0.0, 0.5, 1.0], dtype=F64)
    if name == "gaussian":
        return hidden + 0.2 * torch.randn(count, D, generator=generator, dtype=F64)
    if name == "bernoulli":
        return (hidden > 0).to(F64)
    if name == "categorical":
        return hidden.round().clamp(0, 2)
    return 1 + torch.poisson((0.7 * hidden + 1).exp(), generator=generator)


@pytest.mark.parametrize("name", BOUNDED)
def test_bounds_are_of_the_evidence_with_all_constants(name: str) -> None:
    """The importance-weighted bound reaches log p(x), the ELBO stays below, also those of the training's history."""
    data = sample_data(name)
    vae = make_vae(D, 1, "normal", "normal", likelihood=copy.deepcopy(BOUNDED[name]), hidden=(8,), seed=0).double()
    config = TrainingConfig(warm_up_epochs=12, epochs=0, batch_size=50, learning_rate=1e-2, kl_ramp=0.2)
    history = train(vae, data, data[:100], config, progress=False)
    assert history["validation"][-1] > history["validation"][2]
    rows = data[:3]
    exact = torch.tensor([log_evidence(vae, row) for row in rows], dtype=F64)
    bounds = importance_log_likelihood(vae, rows, 20_000)
    torch.testing.assert_close(bounds, exact, rtol=0, atol=0.02)
    terms = elbo_terms(vae, rows, 4000)
    assert bool((terms.elbo < exact + 0.02).all())


def test_evidence_of_a_linear_gaussian_model_is_closed() -> None:
    network = nn.Linear(2, 5).double()
    likelihood = GaussianLikelihood(0.4).double()
    vae = VAE(Encoder(5, 2, (8,)), Decoder(network, 2, 5, likelihood), NormalPrior(2), NormalPosterior()).double()
    x = torch.randn(4, 5, dtype=F64, generator=torch.Generator().manual_seed(3))
    weight, bias = network.weight.detach(), network.bias.detach()
    covariance = weight @ weight.mT + 0.16 * torch.eye(5, dtype=F64)
    exact = torch.distributions.MultivariateNormal(bias, covariance).log_prob(x)

    def proposal(rows: Tensor) -> torch.distributions.MultivariateNormal:
        posterior = torch.linalg.inv(torch.eye(2, dtype=F64) + weight.mT @ weight / 0.16)
        return torch.distributions.MultivariateNormal((rows - bias) @ weight @ posterior / 0.16, posterior)

    # the weights of draws of the exact posterior are all p(x)
    torch.testing.assert_close(importance_log_likelihood(vae, x, 3, proposal=proposal), exact, rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------------------------ every model


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("prior", ["vamp", "heat_kernel"])
def test_every_likelihood_has_every_prior(name: str, prior: str) -> None:
    data = sample_data(name, 80)
    settings: dict[str, Any] = {"pseudo_inputs": data[:4]} if prior == "vamp" else {}
    vae = make_vae(
        D, 1, prior, "normal", likelihood=copy.deepcopy(BOUNDED[name]), hidden=(8,), seed=0, **settings
    ).double()
    history = train(vae, data, config=TrainingConfig(2, 2, batch_size=40), progress=False)
    assert all(map(math.isfinite, history["elbo"]))
    assert vae.model(None, size=5).shape == (5, 1)


@pytest.mark.parametrize("name", ["bernoulli", "poisson"])
@pytest.mark.parametrize("model", MODELS)
def test_every_autoencoder_has_every_likelihood(model: str, name: str) -> None:
    data = sample_data(name, 60).float()
    settings: dict[str, Any] = {"metric_width": 4} if model == "rhvae" else {}
    found = make_autoencoder(model, (1, D), 2, hidden=(8,), likelihood=copy.deepcopy(BOUNDED[name]), seed=0, **settings)
    history = found.fit(data, config=FitConfig(epochs=4, batch_size=30, learning_rate=1e-2), progress=False)
    assert history["loss"][-1] < history["loss"][0]
    assert found.sample(4, seed=0).shape == (4, D)


def test_loss_of_a_variational_autoencoder_is_a_bound_with_all_constants() -> None:
    """HVAE's unbiased weights and the ELBO of a VAE, both of one Poisson model, against its evidence."""
    from tests.autoencoders._tools import log_evidence as evidence

    rows = torch.tensor([[0.0, 2, 1, 4]], dtype=F64)
    model = make_autoencoder("hvae", (2, 2), 2, hidden=(8,), likelihood=PoissonLikelihood(), seed=3).double().eval()
    exact = evidence(model, rows, lambda z: -0.5 * z.square().sum(-1) - math.log(2 * math.pi))
    torch.manual_seed(0)
    weights = model.elbo(rows.expand(20_000, 4)).detach().exp()  # type: ignore[operator]
    error = float(weights.std()) / math.sqrt(20_000)
    assert abs(float(weights.mean()) - float(exact.exp())) < 4 * error
    assert error < 0.05 * float(exact.exp()), "the check must be able to fail"


def information(likelihood: Likelihood, output: Tensor) -> Tensor:
    """Fisher information of the outputs, ``(n, num_outputs, num_outputs)``, from the textbook."""
    if isinstance(likelihood, GaussianLikelihood):
        return torch.eye(output.shape[-1], dtype=F64) / float(likelihood.scale) ** 2
    if isinstance(likelihood, CategoricalLikelihood):
        blocks = output.unflatten(-1, (-1, likelihood.num_categories)).softmax(-1)
        return torch.stack([torch.block_diag(*(p.diag() - torch.outer(p, p) for p in rows)) for rows in blocks])
    mean = likelihood.mean(output)
    if isinstance(likelihood, BernoulliLikelihood):
        return torch.diag_embed(mean * (1 - mean))
    if isinstance(likelihood, NegativeBinomialLikelihood):
        return torch.diag_embed(mean / (1 + mean / likelihood.total_count))
    return torch.diag_embed(mean)


@pytest.mark.parametrize("name", BOUNDED)
def test_metric_of_a_decoder_is_the_fisher_information_of_its_likelihood(name: str) -> None:
    likelihood = copy.deepcopy(BOUNDED[name]).double()
    decoder = Decoder(mlp([2, 8, likelihood.num_outputs(D)]), 2, D, likelihood).double().requires_grad_(False)
    z = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    jacobian = torch.func.vmap(torch.func.jacrev(decoder.output))(z)
    expected = jacobian.mT @ information(likelihood, decoder.output(z)) @ jacobian
    torch.testing.assert_close(PullbackMetric(decoder, 2, jitter=0.0).metric(z), expected, rtol=1e-8, atol=1e-8)
