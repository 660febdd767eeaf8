"""What all autoencoders have in common: fit, sample, encode, decode."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyro
import torch
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_riemann._checks import check_finite
from pyro_riemann._seed import seeded
from pyro_riemann.autoencoders._networks import ImageDecoder, ImageEncoder
from pyro_riemann.sampling import LatentSampler, NormalSampler
from pyro_riemann.vae import GaussianLikelihood, History
from pyro_riemann.vae._callbacks import Watcher, as_callbacks
from pyro_riemann.vae._data import Data
from pyro_riemann.vae._loop import run_training
from pyro_riemann.vae._objective import Objective

_ROWS = 2000  # images encoded or decoded at once


class Autoencoder(nn.Module):
    """The autoencoder: the least squares that all its relatives add to, :math:`|x - D(E(x))|^2` a datum.

    With another likelihood than the Gaussian its negative logarithm stands for the squares. A relative is a subclass
    with its own :meth:`loss`, and its own :meth:`prior` where that is not N(0, I). Images are rows ``(n, D)`` in
    [0, 1], codes ``(n, d)``.

    Args:
        encoder: gives (location, scale), see :class:`ImageEncoder`.
        decoder: gives the mean image, see :class:`ImageDecoder`.

    Raises:
        ValueError: if encoder and decoder do not fit together.
        ValueError: by methods, if rows have the wrong width or are not finite.

    Source: Hinton & Salakhutdinov (2006), *Reducing the dimensionality of data with neural networks*.

    Example:
        >>> from pyro_riemann.autoencoders import FitConfig, image_networks
        >>> model = Autoencoder(*image_networks((8, 8), 2, hidden=(16,), variational=False))
        >>> data = torch.rand(50, 64)
        >>> history = model.fit(data, config=FitConfig(epochs=2, batch_size=25), progress=False)
        >>> model.sample(3, seed=0).shape, model.encode(data).shape
        (torch.Size([3, 64]), torch.Size([50, 2]))
    """

    variational = False

    def __init__(self, encoder: ImageEncoder, decoder: ImageDecoder) -> None:
        super().__init__()
        if encoder.latent_dim != decoder.latent_dim or encoder.data_dim != decoder.data_dim:
            raise ValueError(
                f"`encoder` maps R^{encoder.data_dim} to R^{encoder.latent_dim}, `decoder` R^{decoder.latent_dim} to "
                f"R^{decoder.data_dim}: they must be of the same spaces."
            )
        if self.variational and encoder.log_scale is None:
            raise ValueError(f"{type(self).__name__} needs an encoder with a scale: build it with `variational=True`.")
        self.encoder, self.decoder = encoder, decoder
        self.latent_dim, self.data_dim = encoder.latent_dim, encoder.data_dim

    # ---------------------------------------------------------------- what a relative changes

    def loss(self, x: Tensor) -> Tensor:
        """What training minimises, the mean over the rows of ``x``; a scalar."""
        return self.reconstruction_error(x, self.encoder(x)[0]).mean()

    def prior(self) -> LatentSampler:
        """The model's own law of codes."""
        return NormalSampler(self.latent_dim)

    def prepare(self, data: Tensor) -> None:
        """Called once with the training ``data``, ``(n, D)``, before they are fitted."""

    def finish(self, data: Tensor) -> None:
        """Called with the training ``data``, ``(n, D)``, after they are fitted."""

    # ---------------------------------------------------------------- the common interface

    def reconstruction_error(self, x: Tensor, z: Tensor) -> Tensor:
        """Squared distance of ``x`` ``(n, D)`` to the image of ``z`` ``(n, d)``; of other likelihoods -log p(x | z)."""
        if isinstance(self.decoder.likelihood, GaussianLikelihood):
            return (x - self.decoder(z)).square().sum(-1)
        return -self.decoder.log_likelihood(x, z)

    def fit(
        self,
        data: Data,
        validation: Data | None = None,
        config: FitConfig | None = None,
        *,
        checkpoint: str | Path | None = None,
        resume: bool = True,
        progress: bool = True,
        callbacks: Sequence[Watcher] = (),
    ) -> History:
        """Train, keep the weights of the least validation loss, and leave the model in evaluation mode.

        Args:
            data: training images ``(n, D)``, or a ``Dataset`` or ``DataLoader``, as :func:`pyro_riemann.vae.train`
                takes them.
            validation: held-out images, likewise; without them the training loss chooses the weights.
            config: settings.
            checkpoint: folder of checkpoints; a run that was stopped continues from there and ends with the same
                weights as one that was not. It is saved as :func:`pyro_riemann.vae.train` is.
            resume: continue from ``checkpoint`` if it holds one; else start over, whatever is there.
            progress: show a progress bar.
            callbacks: are told of each epoch, see :func:`pyro_riemann.vae.train`.

        Raises:
            TypeError, ValueError: for data of another kind or shape, or callbacks that are none; a checkpoint that is
                damaged or of another run; or a loss that is not finite.
            OSError: if the folder cannot be written to, or another process works on it.
        """
        objective = _Fit(self, config or FitConfig())
        return run_training(objective, data, validation, as_callbacks(callbacks, progress), checkpoint, resume)

    def pyro_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters by their names in Pyro's parameter store, each of its own shape."""
        return {f"autoencoder.{key}": value for key, value in self.named_parameters()}

    def encode(self, x: Tensor) -> Tensor:
        """Codes ``(n, d)`` of images ``x`` ``(n, D)``, in evaluation mode, without gradient.

        Of a variational model, the locations of the posteriors.
        """
        return self._in_batches(lambda rows: self.encoder(rows)[0], self._check("x", x, self.data_dim))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of the posteriors of ``x``, each ``(n, d)``: what ``KernelMetric.from_posterior`` takes.

        Raises:
            TypeError: if the model has no posterior.
        """
        if not self.variational:
            raise TypeError(f"{type(self).__name__} has no posterior: its encoder gives points.")
        self._check("x", x, self.data_dim)
        both = self._in_batches(lambda rows: torch.stack(self.encoder(rows), -1), x)
        return both[..., 0], both[..., 1]

    def decode(self, z: Tensor) -> Tensor:
        """Mean images ``(n, D)`` of codes ``z`` ``(n, d)``, in evaluation mode, without gradient."""
        return self._in_batches(self.decoder, self._check("z", z, self.latent_dim))

    def sample(self, num_samples: int, sampler: LatentSampler | None = None, seed: int | None = None) -> Tensor:
        """Images ``(num_samples, D)`` of drawn codes, in evaluation mode, without gradient.

        Args:
            num_samples: number of images.
            sampler: what draws the codes; the model's own prior by default.
            seed: of the draws; the global generator is then left alone. By default it is drawn from.

        Raises:
            ValueError: if ``num_samples`` is less than 1.
        """
        if num_samples < 1:
            raise ValueError(f"`num_samples` must be at least 1, got {num_samples}.")
        like = next(self.parameters())
        with nullcontext() if seed is None else seeded(seed, like.device), evaluating(self):
            codes = (sampler or self.prior()).sample(num_samples)
        return self.decode(codes.to(like))

    def _in_batches(self, function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        like = next(self.parameters())
        with evaluating(self), torch.no_grad():
            return torch.cat([function(part.to(like)) for part in rows.split(_ROWS)])

    @staticmethod
    def _check(name: str, rows: Tensor, width: int) -> Tensor:
        if rows.dim() != 2 or rows.shape[-1] != width or len(rows) == 0:
            raise ValueError(f"`{name}` must have shape (n, {width}), got {tuple(rows.shape)}.")
        return check_finite(name, rows)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside: batch normalisation by what training saw, not by the images being made."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class _Fit(Objective):
    """The loss of an autoencoder, in one phase whose rate is halved where the validation loss does not fall."""

    module: Autoencoder
    config: FitConfig

    def __init__(self, model: Autoencoder, config: FitConfig) -> None:
        super().__init__(model, config, model.data_dim, (config.epochs,))

    def named_parameters(self) -> dict[str, nn.Parameter]:
        return self.module.pyro_parameters()

    def checked(self, name: str, rows: Tensor) -> Tensor:
        return self.module.decoder.check(name, rows)

    def svi(self, optimizer: pyro.optim.PyroOptim) -> SVI:
        def loss_and_grads(model: object, guide: object, rows: Tensor) -> float:
            for name, value in self.named_parameters().items():
                if value.requires_grad:
                    pyro.param(name, value)
            loss = self.module.loss(rows)
            loss.backward()
            return loss.item()

        return SVI(self.module.loss, self.module.loss, optimizer, self.module.loss, loss_and_grads)

    def step(self, svi: SVI, rows: Tensor, size: int, phase: int, epoch: int) -> float:
        loss: float = svi.step(rows)
        return loss

    def total_loss(self, rows: Tensor) -> float:
        return self.module.loss(rows).item() * len(rows)

    def rate(self, name: str, phase: int, history: History) -> float:
        """The first rate, halved as often as the validation loss has waited for its patience."""
        rate, best, stale = self.config.learning_rate, math.inf, 0
        for value in history["validation"]:
            best, stale = (value, 0) if value < best else (best, stale + 1)
            if stale and stale % self.config.patience == 0:
                rate *= 0.5
        return rate

    def begin_phase(self, phase: int, data: Tensor) -> None:
        for part in (self.module.encoder, self.module.decoder):
            part.standardize(data)
        self.module.prepare(data)

    def finish(self, data: Tensor) -> None:
        self.module.finish(data)

    def record(self, loss: float, validation: float, history: History) -> dict[str, float]:
        return {"loss": loss, "validation": validation, "learning_rate": self.rate("", 1, history)}


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Settings of :meth:`Autoencoder.fit`; the defaults are those of C22, appendix E, for MNIST.

    Attributes:
        epochs: passes over the training data.
        batch_size: rows a step.
        learning_rate: Adam's first rate.
        patience: halve the rate after so many epochs without a better validation loss.
        checkpoint_every: epochs between checkpoints.
        seed: order and noise of epoch e are functions of (seed, e) alone.

    Raises:
        ValueError: if a count is less than 1, or the rate is not positive.

    Example:
        >>> FitConfig(epochs=10).learning_rate
        0.001
    """

    epochs: int = 100
    batch_size: int = 100
    learning_rate: float = 1e-3
    patience: int = 5
    checkpoint_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"`learning_rate` must be positive, got {self.learning_rate}.")
