"""Samplers of a VAE's codes: the uniform law of kernel metrics by each bandwidth, the default of `sample`, baselines.

``PYRO_RIEMANN_DATA=folder python -m tests.benchmarks.samplers`` prints the tables of docs/howto/samplers.md, in a few
minutes on one core.
"""

from __future__ import annotations

import copy
import time
import warnings

import pyro
import torch
from pyro.distributions import constraints
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_riemann import KernelMetric, RiemannianHeatKernel
from pyro_riemann.datasets import load_dataset
from pyro_riemann.evaluation import compare_samplers, train_classifier
from pyro_riemann.geodesics import training_solver
from pyro_riemann.sampling import sample

MODELS = (("mnist", 32), ("fashion-mnist", 16))
HIDDEN, EPOCHS, CODES, CENTROIDS, DRAWS = 400, 5, 10_000, 500, 2000
STEPS, BATCH = 200, 50  # of SVI for a heat kernel
TRAIN = 50_000  # the rest are held out: of the same law, which the first test images of MNIST are not


class VAE(nn.Module):
    """Two layers each way, Bernoulli pixels."""

    def __init__(self, pixels: int, dim: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * dim))
        self.decoder = nn.Sequential(nn.Linear(dim, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, pixels))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_variance = self.encoder(x).chunk(2, -1)
        return loc, (0.5 * log_variance).exp()

    def decode(self, z: Tensor) -> Tensor:
        return torch.as_tensor(self.decoder(z)).sigmoid()

    def loss(self, x: Tensor) -> Tensor:
        loc, scale = self.encode(x)
        logits = self.decoder(loc + scale * torch.randn_like(loc))
        misfit = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
        return (misfit + (loc.square() + scale.square() - 1 - 2 * scale.log()).sum(-1) / 2).mean()


class LearnedHeatKernel:
    """The heat kernel of a metric, its place and time learned by SVI from draws of the posteriors: networks frozen."""

    def __init__(self, metric: KernelMetric, codes: Tensor) -> None:
        metric = copy.copy(metric)
        metric.solver = training_solver(metric.dim)
        start = metric.centroids[(metric.centroids - codes.mean(0)).square().sum(-1).argmin()]
        time = metric.squared_dist(start.expand_as(codes[:BATCH]), codes[:BATCH]).mean() / metric.dim

        def model(rows: Tensor) -> None:
            loc = pyro.param("loc", start.clone())
            running = pyro.param("time", time, constraint=constraints.positive)
            with pyro.plate("codes", len(codes), subsample_size=len(rows)):
                pyro.sample("z", RiemannianHeatKernel(loc, running, metric), obs=rows)

        pyro.clear_param_store()
        svi = SVI(model, lambda rows: None, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO())  # type: ignore[no-untyped-call]
        self.losses = [svi.step(codes[torch.randint(len(codes), (BATCH,))]) / len(codes) for _ in range(STEPS)]
        self.law = RiemannianHeatKernel(pyro.param("loc").detach(), pyro.param("time").detach(), metric)

    def sample(self, num_samples: int) -> Tensor:
        return self.law.sample((num_samples,))


def main(name: str, dim: int) -> None:
    began = time.process_time()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = load_dataset(name)
    vae = VAE(data.train.shape[1], dim)
    adam = torch.optim.Adam(vae.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAIN).split(200):
            adam.zero_grad()
            loss = vae.loss(data.train[rows])
            loss.backward()
            adam.step()
    judge = train_classifier(data.train[:20_000], data.train_labels[:20_000], data.shape)
    right = float((judge.predict(data.test) == data.test_labels).double().mean())
    with torch.no_grad():
        unseen = data.train[TRAIN:][:DRAWS]
        train, held_out = vae.encode(data.train[:CODES]), vae.encode(unseen)
    print(
        f"{name}, d = {dim}: loss of the last batch {loss.item():.1f}; accuracy of the classifier {right:.3f}; "
        f"{clock(began)}"
    )
    posterior = KernelMetric.from_posterior(*train, CENTROIDS, regularization=1e-6)
    scale = posterior.precisions.rsqrt()
    metrics = {"posterior": posterior}
    for rule in ("mahalanobis", "euclidean"):
        metrics[rule] = KernelMetric.from_posterior(posterior.centroids, scale, CENTROIDS, rule, 1e-6)
    metrics["sqrt(d)"] = KernelMetric(posterior.centroids, posterior.precisions, dim**0.5, 1e-6)
    for rule, metric in metrics.items():
        print(f"{rule}: bandwidth {metric.bandwidth.item():.2f}, bump_scale {metric.bump_scale:.2f}")
    default = sample(vae, data.train[:CODES], 1)
    samplers, codes = {"sample": default.law}, train[0] + train[1] * torch.randn_like(train[0])
    for rule, metric in metrics.items():
        kernel = samplers[f"heat kernel, {rule}"] = LearnedHeatKernel(metric, codes)
        first, last = (sum(part) / 20 for part in (kernel.losses[:20], kernel.losses[-20:]))
        print(f"heat kernel, {rule}: time {float(kernel.law.time):.3g}, loss {first:.2f} to {last:.2f}; {clock(began)}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = compare_samplers(
            train,
            held_out,
            metrics,
            vae.decode,
            judge.features,
            unseen,
            samplers,
            DRAWS,
            CENTROIDS,
        )
    print(table.round(2).to_string(), flush=True)
    for rule, metric in metrics.items():
        print(f"{rule}: coverage of the held-out means {float(metric.coverage(held_out[0])):.2f}")
    for warning in caught:
        print(f"warned: {warning.message}")
    print(clock(began))


def clock(began: float) -> str:
    return f"{time.process_time() - began:.0f} s of one core"


if __name__ == "__main__":
    for model in MODELS:
        main(*model)
