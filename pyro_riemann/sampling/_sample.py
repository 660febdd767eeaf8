"""New items of a trained VAE, in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from pyro_riemann._formulas.novelty import Novelty, novelty
from pyro_riemann._formulas.unit_samplers import check_count
from pyro_riemann._seed import seeded
from pyro_riemann._work import announced
from pyro_riemann.metrics._kernel_encode import Select
from pyro_riemann.sampling._codes import GaussianMixtureSampler, LatentSampler
from pyro_riemann.sampling._result import rows_of
from pyro_riemann.sampling._trained import TrainedModel

_CODES = 2000  # whose images a draw's is compared with, at most


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
