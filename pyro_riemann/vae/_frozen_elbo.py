"""The evidence lower bound of steps that do not train the posterior."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from pyro.infer import Trace_ELBO
from pyro.poutine.messenger import Messenger

from pyro_riemann.distributions import RiemannianHeatKernel, RiemannianWrappedNormal
from pyro_riemann.metrics import GridMetric, RiemannianMetric
from pyro_riemann.vae._frozen_laws import (
    FrozenHeatKernel,
    FrozenLaw,
    PartlySolvedHeatKernel,
    SecondOrderNormal,
    is_trained,
    table_alone,
)


class FrozenPosteriorELBO(Trace_ELBO):
    r"""Evidence lower bound for training steps, which does not work for what no gradient sees.

    Phase 2 of K20 trains the precision of the decoder and the prior's centre and time; the posterior is frozen, and so
    is the metric. Where that is so, and only there, the bound of a draw

    .. math:: \log p(x \mid z) - \log q(z \mid x) + \log p(z)

    is estimated as follows; what of it is trained has the same expectation but for the first point.

    - A wrapped normal is drawn to second order, :math:`z = \mu + v - \tfrac12 \Gamma_\mu(v, v)`, the second term
      shortened to half the length of the first where it is longer. The difference to the exponential map is 1 % of
      :math:`\sqrt t` in the median at d = 5, 1.4 % at d = 10, on K20's protocol.
    - :math:`\log q`, a constant, leaves out log V, or has straight lines for the geodesics of a heat kernel.
    - Densities of posterior and heat-kernel prior are with respect to dM: log det G(z), which is in both otherwise,
      cancels. (Not for a prior with a correction.)
    - Distances from the prior's centre are solved for a share of the rows, chosen at random, which stand for all.
    - Where the metric is a table, curves of these distances start from shortest paths on it and do not leave it:
      beyond its box it is as at its face.

    A law of which something is trained, and any that is not Riemannian, is as it is in ``Trace_ELBO``. For numbers to
    report, use ``Trace_ELBO`` or :func:`evaluate`.

    Args:
        num_particles: draws a datum.
        distances: share of the rows whose distances are solved, in (0, 1].
        **settings: of ``pyro.infer.Trace_ELBO``.

    Raises:
        ValueError: if ``distances`` is out of range.

    Source: K20, section 4 and appendix C, for what is trained.

    Example:
        >>> from pyro.infer import SVI
        >>> from pyro_riemann.vae import make_vae, set_phase
        >>> vae = make_vae(data_dim=4, hidden=(8,), num_centers=3)
        >>> set_phase(vae, 2)
        >>> svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), FrozenPosteriorELBO())
        >>> loss = svi.step(torch.rand(20, 4))
    """

    def __init__(self, num_particles: int = 1, distances: float = 0.2, **settings: Any) -> None:
        if not 0 < distances <= 1:
            raise ValueError(f"`distances` is a share of the rows in (0, 1], got {distances}.")
        super().__init__(num_particles, **settings)
        self.distances = distances
        self.tables: WeakKeyDictionary[GridMetric, GridMetric] = WeakKeyDictionary()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        with _FrozenLaws(self):
            return super()._get_trace(model, guide, args, kwargs)


class _FrozenLaws(Messenger):
    """Puts frozen laws in the place of a guide's, and of the priors of their draws."""

    def __init__(self, elbo: FrozenPosteriorELBO) -> None:
        super().__init__()
        self.elbo = elbo
        self.frozen: dict[str, FrozenLaw] = {}

    def _pyro_sample(self, msg: Any) -> None:
        law, name = msg["fn"], msg["name"]
        if msg["value"] is None:
            if (frozen := _frozen(law)) is not None:
                msg["fn"] = self.frozen[name] = frozen
        elif name in self.frozen and _is_plain(law) and law.metric is self.frozen[name].metric:
            self.frozen[name].in_volume = True
            msg["fn"] = PartlySolvedHeatKernel(law, self._cheap(law.metric), self.elbo.distances)

    def _cheap(self, metric: RiemannianMetric) -> RiemannianMetric:
        """The metric of the distances, kept as long as the table that it comes from."""
        if not isinstance(metric, GridMetric):
            return metric
        if metric not in self.elbo.tables:
            self.elbo.tables[metric] = table_alone(metric)
        return self.elbo.tables[metric]


def _frozen(law: Any) -> Any:
    """What stands in for a law of which nothing is trained; None for others."""
    if (
        type(law) is RiemannianWrappedNormal
        and not law.has_covariance
        and not is_trained(law.loc, law.time, law.metric)
    ):
        return SecondOrderNormal(law.loc, law.time, law.metric, validate_args=False)
    if isinstance(law, RiemannianHeatKernel) and _is_plain(law) and not is_trained(law.loc, law.time, law.metric):
        return FrozenHeatKernel(law.loc, law.time, law.metric, num_steps=law.num_steps, validate_args=False)
    return None


def _is_plain(law: Any) -> bool:
    """A heat kernel whose log density has a distance and log det G, and nothing besides."""
    return isinstance(law, RiemannianHeatKernel) and law.correction == "none" and not law.normalize
