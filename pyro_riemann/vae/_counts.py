"""Likelihoods of counts, with exposures."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_one_of, check_positive, holds
from pyro_riemann._formulas import likelihoods as formulas
from pyro_riemann.vae._likelihoods import Likelihood


class CountLikelihood(Likelihood):
    r"""What likelihoods of counts have in common: :math:`\mathrm{mean} = \mathrm{exposure} \cdot e^{\mathrm{output}}`.

    With ``exposure="total"`` the exposure of a datum is the sum of its counts (in single cells: the library size),
    which is then taken as known: densities and bounds are of x given its exposure. Where none is given, as in draws of
    the model and in the metric of a decoder, it is the mean exposure of the training data.

    Args:
        exposure: ``"none"``, which is 1, or ``"total"``.
    """

    reference: Tensor

    def __init__(self, exposure: str = "none") -> None:
        super().__init__()
        self.exposure_rule = check_one_of("exposure", exposure, formulas.EXPOSURES)
        self.register_buffer("reference", torch.ones(()))

    def log_mean(self, output: Tensor, exposure: Tensor | None) -> Tensor:
        """Logarithm of the mean, ``(*batch, D)``.

        Args:
            output: of the decoder, ``(*batch, D)``.
            exposure: of the data, positive, ``(*batch, 1)``; None for that of the training data.
        """
        return output + (self.reference if exposure is None else exposure).log()

    def exposure(self, x: Tensor) -> Tensor | None:
        return None if self.exposure_rule == "none" else x.sum(-1, keepdim=True)

    def check(self, name: str, x: Tensor) -> Tensor:
        """``x`` ``(*batch, D)``, the argument of that name, if it can be data of this law.

        Raises:
            ValueError: for what is no count, or a datum without any where its total is its exposure.
        """
        formulas.refuse(name, formulas.of_counts(x, self.exposure_rule), holds)
        return x

    @torch.no_grad()
    def standardize(self, data: Tensor) -> tuple[Tensor, Tensor]:
        exposure = self.exposure(data)
        if exposure is not None:
            self.reference.copy_(exposure.double().mean())
        return formulas.count_start(torch, data.double(), self.reference), data.new_ones(())

    def features(self) -> nn.Module:
        return _LogCounts()


class _LogCounts(nn.Module):
    """log(1 + x)."""

    def forward(self, x: Tensor) -> Tensor:
        return formulas.log_counts(torch, x)


class PoissonLikelihood(CountLikelihood):
    """Poisson counts with the outputs as log rates, times an exposure.

    Args:
        exposure: ``"none"``, or ``"total"``: the sum of the counts of a datum is taken as known.

    Raises:
        ValueError: for another exposure; by methods, for data that are no counts.

    Source: McCullagh & Nelder (1989), *Generalized Linear Models*, chapter 6.

    Example:
        >>> likelihood = PoissonLikelihood()
        >>> likelihood.distribution(torch.zeros(2), exposure=torch.tensor([3.0])).mean
        tensor([3., 3.])
    """

    def distribution(self, output: Tensor, exposure: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Poisson(self.log_mean(output, exposure).exp()).to_event(1)


class NegativeBinomialLikelihood(CountLikelihood):
    r"""Negative binomial counts: mean :math:`\mu`, variance :math:`\mu + \mu^2 / r`.

    The outputs are the logarithm of the mean, less that of the exposure; r, the inverse dispersion, does not depend on
    the code. With :math:`r \to \infty` it is the Poisson likelihood.

    Args:
        total_count: the :math:`r` above, a positive number, or one of each entry ``(D,)``.
        learn_total_count: learn it, from this start, as the parameter ``log_total_count``.
        exposure: ``"none"``, or ``"total"``: the sum of the counts of a datum (the library size) is taken as known.

    Raises:
        ValueError: if ``total_count`` is not positive, or for another exposure; by methods, for data that are no
            counts.

    Source: Lopez et al. (2018), *Deep generative modeling for single-cell transcriptomics*, for these counts.

    Example:
        >>> likelihood = NegativeBinomialLikelihood(torch.tensor([2.0, 4.0]))
        >>> law = likelihood.distribution(torch.zeros(2))
        >>> law.mean.detach(), law.variance.detach()  # 1 + 1 / r
        (tensor([1., 1.]), tensor([1.5000, 1.2500]))
    """

    log_total_count: Tensor

    def __init__(
        self, total_count: float | Tensor = 10.0, learn_total_count: bool = True, exposure: str = "none"
    ) -> None:
        super().__init__(exposure)
        start = check_positive("total_count", torch.as_tensor(total_count, dtype=torch.get_default_dtype())).log()
        if learn_total_count:
            self.log_total_count = nn.Parameter(start.clone())
        else:
            self.register_buffer("log_total_count", start.clone())

    @property
    def total_count(self) -> Tensor:
        """The inverse dispersion r, ``()`` or ``(D,)``."""
        return self.log_total_count.exp()

    def distribution(self, output: Tensor, exposure: Tensor | None = None) -> dist.TorchDistribution:
        logits = self.log_mean(output, exposure) - self.log_total_count
        return dist.NegativeBinomial(self.total_count.expand_as(logits), logits=logits).to_event(1)

    def mean(self, output: Tensor) -> Tensor:
        return self.log_mean(output, None).exp()
