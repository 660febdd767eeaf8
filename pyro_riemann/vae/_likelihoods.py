"""Likelihoods p(x | output): the law of a datum given the numbers that a decoder computes from its code."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_one_of, holds
from pyro_riemann._formulas import likelihoods as formulas


class Likelihood(nn.Module):
    r"""The law of a datum x with D entries, independent given the outputs of the decoder.

    A likelihood of your own is a subclass that implements :meth:`distribution`; its ``nn.Parameter`` entries are
    learned with the decoder. :meth:`check` should refuse data of which the law has no density.

    Example:
        >>> class Exponential(Likelihood):
        ...     def distribution(self, output, exposure=None):
        ...         return dist.Exponential(output.exp()).to_event(1)
        >>> Exponential().distribution(torch.zeros(3, 4)).log_prob(torch.ones(3, 4))
        tensor([-4., -4., -4.])
    """

    def distribution(self, output: Tensor, exposure: Tensor | None = None) -> dist.TorchDistribution:
        """The law with all its constants, batch shape ``(*batch)`` and event shape ``(D,)``.

        Args:
            output: of the decoder, ``(*batch, num_outputs)``.
            exposure: of the datum, ``(*batch, 1)``, where :meth:`exposure` gives one.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `distribution(output, exposure)`.")

    def num_outputs(self, data_dim: int) -> int:
        """How many numbers a decoder gives for a datum with ``data_dim`` entries; by default as many."""
        return data_dim

    def mean(self, output: Tensor) -> Tensor:
        """Mean of the datum, ``(*batch, D)``, at ``output`` ``(*batch, num_outputs)``."""
        mean: Tensor = self.distribution(output).mean
        return mean

    def exposure(self, x: Tensor) -> Tensor | None:
        """What is taken as known of data ``x`` ``(*batch, D)``, ``(*batch, 1)``; by default None: nothing."""
        return None

    def check(self, name: str, x: Tensor) -> Tensor:
        """``x`` ``(*batch, D)``, the argument of that name, if it can be data of this law; raises if not."""
        return x

    def standardize(self, data: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs at which this is the marginal law of the training ``data`` ``(n, D)``, and their unit.

        Returns:
            ``(num_outputs,)`` and ``()``.
        """
        return data.new_zeros(self.num_outputs(data.shape[-1])), data.new_ones(())

    def features(self) -> nn.Module:
        """What an encoder sees best of the data: a module that maps ``(*batch, D)``; by default the identity."""
        return nn.Identity()


class GaussianLikelihood(Likelihood):
    r"""Normal data with one standard deviation for all entries, :math:`N(x \mid \mu, s^2 I)`.

    Args:
        scale: the :math:`s` above, where it is learned its start until :meth:`standardize` knows the data's.
        learn_scale: learn it, as a parameter ``log_scale``.
        link: what makes the mean of the output: ``"identity"``, or ``"sigmoid"`` for data in [0, 1].

    Raises:
        ValueError: if ``scale`` is not positive, or for another link.

    Source: Kingma & Welling (2014), *Auto-encoding variational Bayes*, appendix C.2.

    Example:
        >>> law = GaussianLikelihood(scale=0.1, learn_scale=False).distribution(torch.zeros(2, 3))
        >>> law.batch_shape, law.event_shape
        (torch.Size([2]), torch.Size([3]))
    """

    def __init__(self, scale: float = 1.0, learn_scale: bool = True, link: str = "identity") -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"`scale` must be positive, got {scale}.")
        self.fixed_scale, self.link = None if learn_scale else float(scale), check_one_of("link", link, formulas.LINKS)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale))) if learn_scale else None

    @property
    def scale(self) -> Tensor | float:
        """The standard deviation, a number or a scalar tensor."""
        return self.log_scale.exp() if self.log_scale is not None else self.fixed_scale or 0.0

    def mean(self, output: Tensor) -> Tensor:
        return output.sigmoid() if self.link == "sigmoid" else output

    def distribution(self, output: Tensor, exposure: Tensor | None = None) -> dist.TorchDistribution:
        mean = self.mean(output)
        scale = self.scale
        return dist.Normal(mean, scale.expand_as(mean) if isinstance(scale, Tensor) else scale).to_event(1)

    def check(self, name: str, x: Tensor) -> Tensor:
        """``x`` ``(*batch, D)``, the argument of that name, if it can be data of this law.

        Raises:
            ValueError: for data outside [0, 1] where the mean is a sigmoid.
        """
        if self.link == "sigmoid":
            formulas.refuse(name, formulas.of_sigmoid(x), holds)
        return x

    @torch.no_grad()
    def standardize(self, data: Tensor) -> tuple[Tensor, Tensor]:
        output, unit, deviation = formulas.gaussian_start(torch, data.double(), self.link)
        if self.log_scale is not None:
            self.log_scale.copy_(deviation.log())
        return output, unit


class BernoulliLikelihood(Likelihood):
    r"""Data of zeros and ones, with the outputs as log odds: :math:`p = 1 / (1 + e^{-\mathrm{output}})`.

    Grey values are refused: :math:`p^x (1 - p)^{1 - x}` is no density on [0, 1].

    Raises:
        ValueError: by methods, for data other than 0 and 1.

    Source: Kingma & Welling (2014), appendix C.1; Loaiza-Ganem & Cunningham (2019), *The continuous Bernoulli*, for the
    missing constant of grey values.

    Example:
        >>> BernoulliLikelihood().distribution(torch.zeros(3)).log_prob(torch.ones(3)).exp()
        tensor(0.1250)
    """

    def distribution(self, output: Tensor, exposure: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=output).to_event(1)

    def check(self, name: str, x: Tensor) -> Tensor:
        formulas.refuse(name, formulas.of_bits(x), holds)
        return x

    def standardize(self, data: Tensor) -> tuple[Tensor, Tensor]:
        return formulas.logit(torch, data.double().mean(0)), data.new_ones(())


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
        >>> law = likelihood.distribution(torch.zeros(likelihood.num_outputs(data_dim=3)))
        >>> law.log_prob(torch.tensor([0.0, 1.0, 3.0])).exp()  # 4 ** -3
        tensor(0.0156)
    """

    def __init__(self, num_categories: int) -> None:
        super().__init__()
        if num_categories < 2:
            raise ValueError(f"`num_categories` must be at least 2, got {num_categories}.")
        self.num_categories = num_categories

    def num_outputs(self, data_dim: int) -> int:
        return data_dim * self.num_categories

    def distribution(self, output: Tensor, exposure: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Categorical(logits=output.unflatten(-1, (-1, self.num_categories))).to_event(1)

    def mean(self, output: Tensor) -> Tensor:
        return output.unflatten(-1, (-1, self.num_categories)).argmax(-1).to(output)

    def check(self, name: str, x: Tensor) -> Tensor:
        formulas.refuse(name, formulas.of_categories(x, self.num_categories), holds)
        return x

    def standardize(self, data: Tensor) -> tuple[Tensor, Tensor]:
        return formulas.categorical_start(torch, data.double(), self.num_categories), data.new_ones(())

    def features(self) -> nn.Module:
        return _OneHot(self.num_categories)


class _OneHot(nn.Module):
    """Categories as unit vectors."""

    def __init__(self, num_categories: int) -> None:
        super().__init__()
        self.num_categories = num_categories

    def forward(self, x: Tensor) -> Tensor:
        return formulas.one_hot(torch, x, self.num_categories)
