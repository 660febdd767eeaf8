"""Likelihoods p(x | output): the law of a datum given the numbers that a decoder computes from its code."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from pyro_riemann._formulas import likelihoods as formulas
from pyro_riemann.numpyro._checks import check_one_of, holds
from pyro_riemann.numpyro._pytree import Pytree, replaced
from pyro_riemann.numpyro.vae._layers import Activation


class Likelihood(Pytree):
    r"""The law of a datum x with D entries, independent given the outputs of the decoder.

    A likelihood of your own is a subclass that implements :meth:`distribution`; arrays whose names are in its
    ``pytree_data_fields`` are learned with the decoder. :meth:`check` should refuse data of which the law has no
    density.

    Example:
        >>> class Exponential(Likelihood):
        ...     def distribution(self, output, exposure=None):
        ...         return dist.Exponential(jnp.exp(output)).to_event(1)
        >>> Exponential().distribution(jnp.zeros((3, 4))).log_prob(jnp.ones((3, 4))).tolist()
        [-4.0, -4.0, -4.0]
    """

    def distribution(self, output: Array, exposure: Array | None = None) -> dist.Distribution:
        """The law with all its constants, batch shape ``(*batch)`` and event shape ``(D,)``.

        Args:
            output: of the decoder, ``(*batch, num_outputs)``.
            exposure: of the datum, ``(*batch, 1)``, where :meth:`exposure` gives one.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `distribution(output, exposure)`.")

    def num_outputs(self, data_dim: int) -> int:
        """How many numbers a decoder gives for a datum with ``data_dim`` entries; by default as many."""
        return data_dim

    def mean(self, output: Array) -> Array:
        """Mean of the datum, ``(*batch, D)``, at ``output`` ``(*batch, num_outputs)``."""
        return self.distribution(output).mean

    def exposure(self, x: Array) -> Array | None:
        """What is taken as known of data ``x`` ``(*batch, D)``, ``(*batch, 1)``; by default None: nothing."""
        return None

    def check(self, name: str, x: Array) -> Array:
        """``x`` ``(*batch, D)``, the argument of that name, if it can be data of this law; raises if not."""
        return x

    def standardize(self, data: Array) -> tuple[Self, Array, Array]:
        """This likelihood as it starts at training ``data`` ``(n, D)``, outputs of their marginal law, and their unit.

        Returns:
            The likelihood, ``(num_outputs,)`` and ``()``.
        """
        return self, jnp.zeros(self.num_outputs(data.shape[-1])), jnp.ones(())

    def features(self) -> Callable[[Array], Array]:
        """What an encoder sees best of the data: a pytree that maps ``(*batch, D)``; by default the identity."""
        return Activation("Identity")


class GaussianLikelihood(Likelihood):
    r"""Normal data with one standard deviation for all entries, :math:`N(x \mid \mu, s^2 I)`.

    Args:
        scale: the :math:`s` above, where it is learned its start until :meth:`standardize` knows the data's.
        learn_scale: learn it, by its logarithm ``log_scale``.
        link: what makes the mean of the output: ``"identity"``, or ``"sigmoid"`` for data in [0, 1].

    Raises:
        ValueError: if ``scale`` is not positive, or for another link.

    Source: Kingma & Welling (2014), *Auto-encoding variational Bayes*, appendix C.2.

    Example:
        >>> law = GaussianLikelihood(scale=0.1, learn_scale=False).distribution(jnp.zeros((2, 3)))
        >>> law.batch_shape, law.event_shape
        ((2,), (3,))
    """

    pytree_data_fields = ("log_scale",)

    def __init__(self, scale: float = 1.0, learn_scale: bool = True, link: str = "identity") -> None:
        if not 0 < scale < math.inf:
            raise ValueError(f"`scale` must be positive, got {scale}.")
        self.learn_scale, self.link = learn_scale, check_one_of("link", link, formulas.LINKS)
        self.log_scale = jnp.asarray(math.log(scale))

    @property
    def scale(self) -> Array:
        """The standard deviation, a scalar; no gradient passes where it is not learned."""
        return jnp.exp(self.log_scale if self.learn_scale else jax.lax.stop_gradient(self.log_scale))

    def mean(self, output: Array) -> Array:
        return jax.nn.sigmoid(output) if self.link == "sigmoid" else output

    def distribution(self, output: Array, exposure: Array | None = None) -> dist.Distribution:
        return dist.Normal(self.mean(output), self.scale).to_event(1)

    def check(self, name: str, x: Array) -> Array:
        """``x`` ``(*batch, D)``, the argument of that name, if it can be data of this law.

        Raises:
            ValueError: for data outside [0, 1] where the mean is a sigmoid.
        """
        if self.link == "sigmoid":
            formulas.refuse(name, formulas.of_sigmoid(x), holds)
        return x

    def standardize(self, data: Array) -> tuple[Self, Array, Array]:
        output, unit, deviation = formulas.gaussian_start(np, on_host(data), self.link)
        start = like(self.log_scale, np.log(deviation)) if self.learn_scale else self.log_scale
        return replaced(self, log_scale=start), like(self.log_scale, output), like(self.log_scale, unit)


class BernoulliLikelihood(Likelihood):
    r"""Data of zeros and ones, with the outputs as log odds: :math:`p = 1 / (1 + e^{-\mathrm{output}})`.

    Grey values are refused: :math:`p^x (1 - p)^{1 - x}` is no density on [0, 1].

    Raises:
        ValueError: by methods, for data other than 0 and 1.

    Source: Kingma & Welling (2014), appendix C.1; Loaiza-Ganem & Cunningham (2019), *The continuous Bernoulli*, for the
    missing constant of grey values.

    Example:
        >>> jnp.exp(BernoulliLikelihood().distribution(jnp.zeros(3)).log_prob(jnp.ones(3))).round(4).item()
        0.125
    """

    def distribution(self, output: Array, exposure: Array | None = None) -> dist.Distribution:
        return dist.Bernoulli(logits=output).to_event(1)

    def check(self, name: str, x: Array) -> Array:
        formulas.refuse(name, formulas.of_bits(x), holds)
        return x

    def standardize(self, data: Array) -> tuple[Self, Array, Array]:
        return self, jnp.asarray(formulas.logit(np, on_host(data).mean(0)), float), jnp.ones(())


class CategoricalLikelihood(Likelihood):
    """Data of categories 0, 1, ..., k - 1, with k outputs an entry as log probabilities up to a constant.

    Outputs are in blocks of k, an entry after the other. As a mean stands the most probable category.

    Args:
        num_categories: the k above, of every entry.

    Raises:
        ValueError: if that is less than 2; by methods, for data that are no category.

    Source: Bishop (2006), *Pattern Recognition and Machine Learning*, section 4.3.4.

    Example:
        >>> likelihood = CategoricalLikelihood(4)
        >>> law = likelihood.distribution(jnp.zeros(likelihood.num_outputs(data_dim=3)))
        >>> jnp.exp(law.log_prob(jnp.array([0, 1, 3]))).round(4).item()  # 4 ** -3
        0.015599999576807022
    """

    def __init__(self, num_categories: int) -> None:
        if num_categories < 2:
            raise ValueError(f"`num_categories` must be at least 2, got {num_categories}.")
        self.num_categories = num_categories

    def num_outputs(self, data_dim: int) -> int:
        return data_dim * self.num_categories

    def distribution(self, output: Array, exposure: Array | None = None) -> dist.Distribution:
        return dist.Categorical(logits=self._by_entry(output)).to_event(1)

    def mean(self, output: Array) -> Array:
        return self._by_entry(output).argmax(-1).astype(output.dtype)

    def check(self, name: str, x: Array) -> Array:
        formulas.refuse(name, formulas.of_categories(x, self.num_categories), holds)
        return x

    def standardize(self, data: Array) -> tuple[Self, Array, Array]:
        start = formulas.categorical_start(np, on_host(data), self.num_categories)
        return self, jnp.asarray(start, float), jnp.ones(())

    def features(self) -> Callable[[Array], Array]:
        return OneHot(self.num_categories)

    def _by_entry(self, output: Array) -> Array:
        return output.reshape(*output.shape[:-1], -1, self.num_categories)


class OneHot(Pytree):
    """Categories as unit vectors."""

    def __init__(self, num_categories: int) -> None:
        self.num_categories = num_categories

    def __call__(self, x: Array) -> Array:
        return formulas.one_hot(jnp, x, self.num_categories)


def on_host(data: Array) -> np.ndarray:
    """Data in double precision, which sums over all of them need."""
    return np.asarray(data, np.float64)


def like(array: Array, value: np.ndarray) -> Array:
    """The value in the dtype of the array."""
    return jnp.asarray(value, array.dtype)
