"""New items of a trained VAE, in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_riemann._checks import check_finite
from pyro_riemann._decoded import outputs
from pyro_riemann._formulas.novelty import Novelty, novelty
from pyro_riemann._formulas.unit_samplers import check_count
from pyro_riemann._seed import seeded
from pyro_riemann._work import announced
from pyro_riemann.metrics._from_vae import decoding
from pyro_riemann.metrics._kernel_encode import Select, chosen, draws_of, moved
from pyro_riemann.metrics._modules import evaluating, modules_of
from pyro_riemann.sampling._codes import GaussianMixtureSampler, LatentSampler
from pyro_riemann.sampling._result import rows_of

_CODES = 2000  # whose images a draw's is compared with, at most
_ROWS = 500  # items encoded or decoded at once


class TrainedModel:
    """Encodes and decodes, in evaluation mode and without gradients.

    Args:
        model: has ``posterior``, ``encode`` or ``encoder``, and ``decode`` or ``decoder``.
        encoder: what encodes a batch, if not the model's own.
        decoder: what decodes codes ``(n, d)``, if not the model's own.
        select: what of a batch the encoder is given.

    Raises:
        TypeError: if there is nothing to encode with.
    """

    def __init__(
        self,
        model: object,
        encoder: Callable[..., object] | None,
        decoder: Callable[..., object] | None,
        select: Select,
    ) -> None:
        self.encoder, self.select = encoder or _encoder(model), select
        self.model, self.decoder = model, decoder
        self.modules = [module for part in (model, encoder, decoder) for module in modules_of(part)]
        state = next((tensor for module in self.modules for tensor in module.parameters()), None)
        self.device = None if state is None else state.device

    def encode(self, data: Tensor | Iterable[object], seed: int) -> Tensor:
        """One draw of the posterior of each datum, ``(N, d)``; of models without posteriors the codes.

        Raises:
            TypeError, ValueError: if a batch, or what the encoder returns, is none of those that are known.
        """
        found = []
        batches: Iterable[object] = data.split(_ROWS) if isinstance(data, Tensor) else data
        with torch.no_grad(), evaluating(self.modules), seeded(seed, self.device):
            for batch in batches:
                rows, count = moved(chosen(batch, self.select), self.device)
                codes = draws_of(self.encoder(rows))
                if len(codes) != count:
                    raise ValueError(
                        f"the encoder must map a batch of {count} to as many codes, got {tuple(codes.shape)}."
                    )
                found.append(codes.reshape(count, -1))
        if not found:
            raise ValueError("`data` has no batch.")
        return check_finite("data", torch.cat(found))

    def decode(self, codes: Tensor) -> Tensor:
        """Means of what the decoder returns of codes ``(n, d)``.

        Raises:
            TypeError: if there is nothing to decode with.
            ValueError: if the decoder returns no tensor and no distribution.
        """
        decoder = self.decoder or decoding(self.model, codes.shape[-1], None, None, as_law=False)[0]
        with torch.no_grad(), evaluating(self.modules):
            return torch.cat([_mean(decoder(part)) for part in codes.split(_ROWS)])


def _encoder(model: object) -> Callable[..., object]:
    names = ("posterior", "encode", "encoder") if getattr(model, "variational", True) else ("encode", "encoder")
    for name in names:
        if callable(found := getattr(model, name, None)):
            return found
    raise TypeError(
        f"`model`, a {type(model).__name__}, has no `posterior`, `encode` or `encoder` that can be called: give "
        "`encoder=`, which maps a batch to (location, scale), a distribution or points."
    )


def _mean(decoded: object) -> Tensor:
    first = outputs(decoded, None, Tensor, Distribution)[0]
    return first.mean if isinstance(first, Distribution) else first


@dataclass(frozen=True, eq=False)
class Samples:
    """New items of a trained model, and what it takes to judge them.

    Attributes:
        items: decoded means, ``(n, ...)`` as the decoder gives them.
        codes: what was decoded, ``(n, d)``.
        law: what drew the codes.
        train: codes of the training data that the law knows, one draw of each posterior, ``(N, d)``.
        model: encodes and decodes.

    Example:
        >>> from pyro_riemann.autoencoders import VariationalAutoencoder, image_networks
        >>> vae = VariationalAutoencoder(*image_networks((4, 4), 2, hidden=(8,)))
        >>> sample(vae, torch.rand(200, 16), 3).items.shape
        torch.Size([3, 16])
    """

    items: Tensor
    codes: Tensor
    law: LatentSampler
    train: Tensor
    model: TrainedModel

    def novelty(
        self,
        held_out: Tensor | Iterable[object],
        features: Callable[[Tensor], Tensor] | None = None,
        neighbors: int = 5,
    ) -> Novelty:
        """Whether the items are copies of training data, and which share of held-out data they cover.

        Images of codes are compared with images of codes: those of the draws, of the training data and of the held-out
        data, the latter two one draw of each posterior.

        Args:
            held_out: data that the model has not seen, at least ``neighbors + 1``, as :func:`sample` takes them.
            features: maps items to what is compared, ``(n, ...)``; default: items as they are.
            neighbors: a held-out item is covered by draws nearer than its neighbour of this rank among held-out items.

        Raises:
            TypeError, ValueError: as :meth:`SamplingResult.novelty`.

        Source: as :meth:`SamplingResult.novelty`.
        """
        unseen = self.model.encode(held_out, 1)

        def seen(codes: Tensor) -> Tensor:
            items = self.model.decode(codes)
            return items if features is None else features(items)

        train = self.train[:: -(-len(self.train) // _CODES)]
        draws, known, others = (rows_of(codes, seen) for codes in (self.codes, train, unseen))
        return novelty(draws, known, others, neighbors)


@announced
def sample(
    model: object,
    data: Tensor | Iterable[object],
    num_samples: int,
    law: LatentSampler | None = None,
    *,
    encoder: Callable[..., object] | None = None,
    decoder: Callable[..., object] | None = None,
    select: Select = None,
    num_components: int = 50,
    seed: int = 0,
) -> Samples:
    r"""New items of a trained VAE: codes from a law that is fitted to the encoded data, decoded.

    N(0, I) has draws where no datum is, and the uniform law of a kernel metric copies: of the samplers that were
    compared on two trained models, and whose draws are no copies, the nearest to held-out data by Frechet distance
    is a mixture of Gaussians with full covariances, fitted to draws of the posteriors. It is the default;
    docs/howto/samplers.md has the figures.

    Args:
        model: a model with ``posterior``, ``encode`` or ``encoder``, which gives a pair (location, scale), a
            distribution, or points; and with ``decode`` or ``decoder``, as :meth:`PullbackMetric.from_vae` takes it.
        data: training data ``(N, ...)``, or a loader of batches, tensors or tuples, lists or mappings with the data
            first.
        num_samples: number of items n.
        law: what draws codes in place of the mixture, for instance
            :class:`UniformSampler(metric) <pyro_riemann.sampling.UniformSampler>`.
        encoder: what encodes a batch, if not the model's own.
        decoder: what decodes codes ``(n, d)``, if not the model's own.
        select: what of a batch the encoder is given, as :meth:`KernelMetric.from_posterior` takes it.
        num_components: of the mixture; at most one for every twenty data, or one, are fitted.
        seed: of the draws and of the fit; the global random state is not touched.

    Returns:
        Items, codes and law; :meth:`Samples.novelty` tells copies from new items.

    Raises:
        TypeError: if the model has nothing to encode or decode with, or these give something else.
        ValueError: for fewer than two data, codes that are not finite, or a number below 1.

    Source: Ghosh et al. (2020), *From variational to deterministic autoencoders*, section 4 (ex-post density
    estimation); fitted to draws, the mixture maximises the ELBO of the frozen networks: Tomczak & Welling (2018), *VAE
    with a VampPrior*, section 2.

    Example:
        >>> from pyro_riemann.autoencoders import VariationalAutoencoder, image_networks
        >>> vae, images = VariationalAutoencoder(*image_networks((4, 4), 2, hidden=(8,))), torch.rand(200, 16)
        >>> found = sample(vae, images[:100], 30)
        >>> found.items.shape, found.codes.shape
        (torch.Size([30, 16]), torch.Size([30, 2]))
        >>> found.novelty(images[100:]).ratio > 0
        True
    """
    check_count("num_samples", num_samples)
    check_count("num_components", num_components)
    trained = TrainedModel(model, encoder, decoder, select)
    train = trained.encode(data, seed)
    if len(train) < 2:
        raise ValueError(f"`data` must be at least two, got {len(train)}.")
    with seeded(seed, train.device):
        if law is None:
            law = GaussianMixtureSampler(train, max(1, min(num_components, len(train) // 20)), seed=seed)
        codes = law.sample(num_samples).to(train)
    return Samples(trained.decode(codes), codes, law, train, trained)
