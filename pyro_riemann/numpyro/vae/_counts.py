"""Likelihoods of counts, with exposures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from pyro_riemann._formulas import likelihoods as formulas
from pyro_riemann.numpyro._checks import check_one_of, check_positive, holds
from pyro_riemann.numpyro._pytree import Pytree, replaced
from pyro_riemann.numpyro.vae._likelihoods import Likelihood, like, on_host


class CountLikelihood(Likelihood):
    r"""What likelihoods of counts have in common: :math:`\mathrm{mean} = \mathrm{exposure} \cdot e^{\mathrm{output}}`.

    With ``exposure="total"`` the exposure of a datum is the sum of its counts (in single cells: the library size),
    which is then taken as known: densities and bounds are of x given its exposure. Where none is given, as in draws of
    the model and in the metric of a decoder, it is the mean exposure of the training data.

    Args:
        exposure: ``"none"``, which is 1, or ``"total"``.
    """

    pytree_data_fields = ("reference",)

    def __init__(self, exposure: str = "none") -> None:
        self.exposure_rule = check_one_of("exposure", exposure, formulas.EXPOSURES)
        self.reference = jnp.ones(())

    def log_mean(self, output: Array, exposure: Array | None) -> Array:
        """Logarithm of the mean, ``(*batch, D)``.

        Args:
            output: of the decoder, ``(*batch, D)``.
            exposure: of the data, positive, ``(*batch, 1)``; None for that of the training data.
        """
        return output + jnp.log(jax.lax.stop_gradient(self.reference) if exposure is None else exposure)

    def exposure(self, x: Array) -> Array | None:
        return None if self.exposure_rule == "none" else x.sum(-1, keepdims=True)

    def check(self, name: str, x: Array) -> Array:
        """``x`` ``(*batch, D)``, the argument of that name, if it can be data of this law.

        Raises:
            ValueError: for what is no count, or a datum without any where its total is its exposure.
        """
        formulas.refuse(name, formulas.of_counts(x, self.exposure_rule), holds)
        return x

    def standardize(self, data: Array) -> tuple[Self, Array, Array]:
        rows = on_host(data)
        reference = np.ones(()) if self.exposure_rule == "none" else rows.sum(-1).mean()
        start = formulas.count_start(np, rows, reference)
        unit = jnp.ones_like(self.reference)
        return replaced(self, reference=like(unit, reference)), like(unit, start), unit

    def features(self) -> Callable[[Array], Array]:
        return LogCounts()


class LogCounts(Pytree):
    """log(1 + x)."""

    def __call__(self, x: Array) -> Array:
        return formulas.log_counts(jnp, x)


class PoissonLikelihood(CountLikelihood):
    """Poisson counts with the outputs as log rates, times an exposure.

    Args:
        exposure: ``"none"``, or ``"total"``: the sum of the counts of a datum is taken as known.

    Raises:
        ValueError: for another exposure; by methods, for data that are no counts.

    Source: McCullagh & Nelder (1989), *Generalized Linear Models*, chapter 6.

    Example:
        >>> likelihood = PoissonLikelihood()
        >>> likelihood.distribution(jnp.zeros(2), exposure=jnp.array([3.0])).mean.round(4).tolist()
        [3.0, 3.0]
    """

    def distribution(self, output: Array, exposure: Array | None = None) -> dist.Distribution:
        return dist.Poisson(jnp.exp(self.log_mean(output, exposure))).to_event(1)


class NegativeBinomialLikelihood(CountLikelihood):
    r"""Negative binomial counts: mean :math:`\mu`, variance :math:`\mu + \mu^2 / r`.

    The outputs are the logarithm of the mean, less that of the exposure; r, the inverse dispersion, does not depend on
    the code. With :math:`r \to \infty` it is the Poisson likelihood.

    Args:
        total_count: the :math:`r` above, a positive number, or one of each entry ``(D,)``.
        learn_total_count: learn it, from this start, by its logarithm ``log_total_count``.
        exposure: ``"none"``, or ``"total"``: the sum of the counts of a datum (the library size) is taken as known.

    Raises:
        ValueError: if ``total_count`` is not positive, or for another exposure; by methods, for data that are no
            counts.

    Source: Lopez et al. (2018), *Deep generative modeling for single-cell transcriptomics*, for these counts.

    Example:
        >>> likelihood = NegativeBinomialLikelihood(jnp.array([2.0, 4.0]))
        >>> law = likelihood.distribution(jnp.zeros(2))
        >>> law.mean.round(4).tolist(), law.variance.round(4).tolist()  # 1 + 1 / r
        ([1.0, 1.0], [1.5, 1.25])
    """

    pytree_data_fields = ("log_total_count",)

    def __init__(self, total_count: ArrayLike = 10.0, learn_total_count: bool = True, exposure: str = "none") -> None:
        super().__init__(exposure)
        self.learn_total_count = learn_total_count
        self.log_total_count = jnp.log(check_positive("total_count", jnp.asarray(total_count, float)))

    @property
    def total_count(self) -> Array:
        """The inverse dispersion r, ``()`` or ``(D,)``; no gradient passes where it is not learned."""
        return jnp.exp(self._log_total_count())

    def distribution(self, output: Array, exposure: Array | None = None) -> dist.Distribution:
        logits = self.log_mean(output, exposure) - self._log_total_count()
        return dist.NegativeBinomialLogits(self.total_count, logits).to_event(1)

    def mean(self, output: Array) -> Array:
        return jnp.exp(self.log_mean(output, None))

    def _log_total_count(self) -> Array:
        return self.log_total_count if self.learn_total_count else jax.lax.stop_gradient(self.log_total_count)
