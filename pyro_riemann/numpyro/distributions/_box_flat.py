"""The uniform law of a constant metric on a box: that of Lebesgue measure."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann.numpyro.distributions._box import SamplerReport, VolumeRule, log_element
from pyro_riemann.numpyro.metrics import ConstantMetric


class FlatLaw(NamedTuple):
    """Closed form; its two nodes have the mean and the variances of the law.

    Attributes:
        rule: the nodes.
        log_volume: exact.
    """

    rule: VolumeRule
    log_volume: Array

    @property
    def efficiency(self) -> Array:
        """1."""
        return jnp.ones_like(self.log_volume)

    @property
    def report(self) -> SamplerReport:
        """Nothing to report."""
        one = self.efficiency
        return SamplerReport("exact", one, one, one.astype(int))


def build_flat(metric: ConstantMetric, low: Array, high: Array) -> FlatLaw:
    """The law of a constant metric on a box."""
    half = 0.5 / 3**0.5
    nodes = jnp.full((2, len(low)), 0.5, low.dtype) + half * jnp.asarray([[-1.0], [1.0]], low.dtype)
    rule = VolumeRule(nodes, jnp.full(2, -math.log(2), low.dtype), jnp.zeros((), low.dtype))
    return FlatLaw(rule, log_element(metric, low, high, nodes[:1])[0])


def draw_flat(low: Array, high: Array, key: Array, count: int) -> Array:
    """``(count, d)`` draws."""
    return low + (high - low) * jax.random.uniform(key, (count, len(low)), low.dtype)
