"""What all jobs share: data, features, trained models, samplers, and the measures of a sampler."""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_riemann.autoencoders import (
    Autoencoder,
    FitConfig,
    GaussianMixtureSampler,
    LatentSampler,
    NormalSampler,
    RiemannianHamiltonianAutoencoder,
    UniformSampler,
    VampPriorAutoencoder,
    VariationalAutoencoder,
    make_autoencoder,
)
from pyro_riemann.datasets import ImageData, load_dataset
from pyro_riemann.evaluation import (
    ClassifierConfig,
    ImageClassifier,
    authenticity,
    frechet_distance,
    prd,
    precision_recall,
    train_classifier,
)
from pyro_riemann.experiments._jobs import pack_images
from pyro_riemann.experiments.chadebec2022._protocol import Protocol
from pyro_riemann.metrics import KernelMetric

# name of a sampler -> bandwidth rule of the metric, method of sampling
GEOMETRIC: dict[str, tuple[str, str]] = {
    "paper": ("euclidean", "hmc"),
    "uniform": ("euclidean", "auto"),
    "uniform, overlapping": ("mahalanobis", "auto"),
}
MAX_CODES = 5_000  # codes that the search for medoids sees at once


class Study:
    """Data, features and trained models of one protocol, made when they are first asked for.

    Args:
        protocol: the settings.
        data: folder of the data sets.
        cache: folder of checkpoints.
        quiet: no progress bars.
        device: where models are trained; samplers and measures stay on the processor.
    """

    def __init__(
        self, protocol: Protocol, data: Path | None, cache: Path, quiet: bool = True, device: str = "cpu"
    ) -> None:
        self.protocol, self.root, self.cache, self.quiet, self.device = protocol, data, cache, quiet, device
        self._centroids: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    @cached_property
    def images(self) -> ImageData:
        """The data set of the table."""
        return load_dataset(self.protocol.dataset, self.root)

    @cached_property
    def extractor(self) -> ImageClassifier:
        """The classifier whose features the measures use, trained on all training images."""
        config = ClassifierConfig(epochs=self.protocol.extractor_epochs)
        return train_classifier(self.images.train, self.images.train_labels, self.images.shape, config=config)

    @cached_property
    def known(self) -> Tensor:
        """Features of all training images, for the search for copies."""
        return self.extractor.features(self.images.train)

    @cached_property
    def real(self) -> Tensor:
        """Features of the test images."""
        return self.extractor.features(self.images.test[: self.protocol.num_samples])

    @cached_property
    def test_authenticity(self) -> float:
        """Of the test images, beside which that of a sampler is read."""
        return authenticity(self.real, self.known)

    def extractor_report(self) -> dict[str, Any]:
        """What the features are."""
        predicted = self.extractor.predict(self.images.test)
        return {
            "test_authenticity": self.test_authenticity,
            "kind": f"classifier trained on {self.protocol.dataset}",
            "features": self.extractor.num_features,
            "test_accuracy": float((predicted == self.images.test_labels).double().mean()),
        }

    def split(self, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """Training images, a random choice, and validation images: a fifth as many, up to the protocol's number.

        Raises:
            ValueError: if there are not so many images.
        """
        count = min(self.protocol.num_validation, max(1, size // 5))
        if size + count > len(self.images.train):
            raise ValueError(
                f"{size} training and {count} validation images are asked for, {self.protocol.dataset} has "
                f"{len(self.images.train)}."
            )
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.images.train), generator=generator)
        return self.images.train[order[:size]], self.images.train[order[size : size + count]]

    def train(
        self, key: str, name: str, train: Tensor, validation: Tensor | None, epochs: int, seed: int, **settings: Any
    ) -> tuple[Autoencoder, dict[str, Any]]:
        """A trained model, from its checkpoint if there is one, and a report."""
        protocol = self.protocol
        shape = settings.pop("shape", None) or self.images.shape
        scale = settings.pop("scale", protocol.likelihood_scale)
        model = make_autoencoder(
            name, shape, protocol.latent_dim, protocol.architecture, hidden=protocol.hidden, scale=scale, seed=seed
        )
        model.to(self.device)
        config = FitConfig(epochs, protocol.batch_size, protocol.learning_rate, seed=seed, **settings)
        history = model.fit(train, validation, config, checkpoint=self.cache / key, progress=not self.quiet)
        return model, {
            "size": len(train),
            "epochs": epochs,
            "best_validation_loss": min(history["validation"]),
            "validation_loss": history["validation"],
            "cpu_seconds": sum(history["processor_seconds"]),
        }

    # ---------------------------------------------------------------- samplers

    def metric(
        self,
        key: str,
        model: Autoencoder,
        train: Tensor,
        rule: str,
        num_centroids: int | None = None,
        regularization: float | None = None,
    ) -> KernelMetric:
        """The kernel metric of a variational model from its training images; ``key`` names the model."""
        count = min(num_centroids or self.protocol.num_centroids, len(train), MAX_CODES)
        floor = self.protocol.regularization if regularization is None else regularization
        if (key, count) not in self._centroids:
            loc, scale = model.posterior(train)
            found = KernelMetric.from_posterior(loc, scale, count, bandwidth=1.0, max_codes=MAX_CODES)
            self._centroids[key, count] = (found.centroids.cpu(), found.precisions.rsqrt().cpu())
        # all codes are centroids now: only bandwidth and floor are new, the search for medoids is not repeated
        loc, scale = self._centroids[key, count]
        return KernelMetric.from_posterior(loc, scale, count, bandwidth=rule, regularization=floor)

    def geometric(self, metric: KernelMetric, method: str, num_samples: int) -> UniformSampler:
        """A sampler of the metric's uniform law; C22's gives the last half of each chain's moves several draws."""
        chains = max(1, num_samples // self.protocol.draws_per_chain)
        return UniformSampler(metric, method=method, **({"num_chains": chains} if method == "hmc" else {}))

    def samplers(self, key: str, model: Autoencoder, train: Tensor, num_samples: int) -> dict[str, LatentSampler]:
        """All laws of codes that the tables have for a model, which ``key`` names.

        ``normal`` is N(0, I), ``prior`` the model's own where it is another, ``gmm`` the mixture fitted after training.
        """
        found: dict[str, LatentSampler] = {"normal": NormalSampler(model.latent_dim)}
        if isinstance(model, VampPriorAutoencoder):
            found["prior"] = model.prior()
        if isinstance(model, RiemannianHamiltonianAutoencoder):
            found["prior"] = model.volume_sampler()
        found["gmm"] = GaussianMixtureSampler(model.encode(train).cpu())
        if type(model) is VariationalAutoencoder:  # the plain one, not its relatives
            metrics = {rule: self.metric(key, model, train, rule) for rule in ("euclidean", "mahalanobis")}
            for label, (rule, method) in GEOMETRIC.items():
                found[label] = self.geometric(metrics[rule], method, num_samples)
        return found

    # ---------------------------------------------------------------- measures

    def measure(
        self, model: Autoencoder, sampler: LatentSampler, seed: int, *, all_measures: bool = True, keep: int = 0
    ) -> dict[str, Any]:
        """FID, PRD and improved precision and recall of decoded draws, with what the sampler says of itself."""
        started = time.process_time()
        images = model.sample(self.protocol.num_samples, sampler, seed=seed).cpu()
        report: dict[str, Any] = {"sampling_cpu_seconds": time.process_time() - started}
        features = self.extractor.features(images)
        report["fid"] = frechet_distance(self.real, features)
        if all_measures:
            curve = prd(self.real, features, seed=seed)
            report |= {"f8": curve.f8, "f1_8": curve.f1_8}
            few = self.protocol.num_neighborhood
            report |= precision_recall(self.real[:few], features[:few])._asdict()
            report["authenticity"] = authenticity(features, self.known)
            counts = torch.bincount(self.extractor.predict(images), minlength=int(self.images.train_labels.max()) + 1)
            report["class_shares"] = (counts / counts.sum()).tolist()
        if isinstance(sampler, UniformSampler):
            report["sampler"] = geometry_report(sampler)
        if keep:
            report["images"] = pack_images(images[:keep])
        return report


def geometry_report(sampler: UniformSampler) -> dict[str, Any]:
    """What a sampler of a metric's uniform law says of itself."""
    result, metric = sampler.result, sampler.metric
    assert result is not None
    assert isinstance(metric, KernelMetric)
    return {
        "method": result.method,
        "efficiency": result.efficiency,
        "acceptance": result.acceptance,
        "max_r_hat": float(result.r_hat.max()),
        "floor_share": result.floor_share,
        "bandwidth": float(metric.bandwidth),
        "num_centroids": len(metric.centroids),
        "regularization": float(metric.regularization),
    }
