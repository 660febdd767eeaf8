"""Which law serves a function on the unit box, and how far its integral is to be trusted: decided in one place."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from pyro_riemann._formulas import unit_fit
from pyro_riemann._formulas.unit_cells import refined
from pyro_riemann._formulas.unit_fit import Landscape, UnitFit
from pyro_riemann._formulas.unit_laws import METHODS, CellLaw, Law, MixtureLaw, SamplerReport, TemperedLaw
from pyro_riemann._formulas.unit_mixture import UnitMixture

MAX_POINTS = 2**19  # of a tempered sequence
WARN_FLOOR = 0.5  # share of draws in the void above which a warning says so
_WARN_EFFICIENCY, _WARN_ERROR = 0.02, 0.2
_LARGEST_ERROR = 1e-3  # a table that is worse than this does not resolve the function


class Builder(Protocol):
    """What builds laws of one function, on the arrays of one library."""

    @property
    def land(self) -> Landscape:
        """The function as the host sees it."""
        ...

    def cells(self, count: int) -> CellLaw:
        """A table of so many cells an axis."""
        ...

    def mixture(self, proposal: UnitMixture, num_points: int) -> MixtureLaw:
        """The law of a proposal, from so many points in each replicate."""
        ...

    def tempered(self, proposal: UnitMixture) -> TemperedLaw:
        """The law of a population that starts from a proposal."""
        ...


class SetUp(NamedTuple):
    """A law and what to think of it.

    Attributes:
        law: the law.
        reason: how it came about, in words.
        doubt: why to doubt its volume, in words.
        on_floor: share of its mass where the metric is only its floor; None where it has none.
    """

    law: Law
    reason: str = ""
    doubt: str = ""
    on_floor: float | None = None

    def report(self, plain: bool = True) -> SamplerReport:
        """The report, in plain numbers unless arrays are traced."""
        law = self.law
        numbers = law.efficiency, law.acceptance, law.steps
        if plain:
            numbers = float(law.efficiency), float(law.acceptance), int(law.steps)
        return SamplerReport(METHODS[type(law)], *numbers, self.reason, self.on_floor)


def set_up_cells(builder: Builder) -> SetUp | None:
    """A table of cells where one resolves the narrowest bump and its volume stands; None elsewhere."""
    if builder.land.dim > 2:
        return None
    # half and full resolution share their blindness for what is narrower than either: climbs do not
    finest, value, its_error = unit_fit.narrowest(builder.land)
    law, cells, error = refined(builder.cells, builder.land.dim, finest)
    rule = law.rule
    stated, doubt = unit_fit.reconciled(float(rule.log_volume), float(rule.standard_error), value, its_error)
    if finest * cells < 1 or doubt or max(error, stated) >= _LARGEST_ERROR:
        return None
    return SetUp(_stated(law, stated, builder.land.epsilon), f"{cells} cells an axis")


def set_up_fit(builder: Builder, fitted: UnitFit) -> SetUp:
    """The law of a mixture where one fits, of a tempered sequence elsewhere."""
    law: Law
    if fitted.fits:
        law = builder.mixture(fitted.mixture, 512 if builder.land.known is None else 1024)
    else:
        law = builder.tempered(fitted.mixture)
    value, error = float(law.rule.log_volume), float(law.rule.standard_error)
    stated, doubt = math.inf, ""
    if math.isfinite(value):
        stated, doubt = fitted.checked(builder.land.slopes, value, error, fitted.fits)
    reason = fitted.reason + ("; cut short by its budget" if isinstance(law, TemperedLaw) and law.short else "")
    return SetUp(_stated(law, stated, builder.land.epsilon), reason, doubt)


def _stated(law: Law, error: float, epsilon: float) -> Law:
    """The law with another error of its volume, which is never 0."""
    smallest = 4 * epsilon * max(1.0, abs(float(law.rule.log_volume)))
    rule = law.rule
    return law._replace(rule=rule._replace(standard_error=0 * rule.standard_error + max(error, smallest)))


def complaints(setup: SetUp, who: str = "RiemannianUniform") -> list[str]:
    """What a user should know of a law that is the best that could be done, and not good."""
    found, report, error = [], setup.report(), float(setup.law.rule.standard_error)
    if report.efficiency < _WARN_EFFICIENCY or error > _WARN_ERROR or setup.doubt:
        why = "; ".join(filter(None, (setup.reason, setup.doubt)))
        found.append(
            f"{who}: the {report.method} sampler has an efficiency of {report.efficiency:.1e} and "
            f"the log volume an error of {error:.1e} ({why}): `metric` varies too fast in the box. Check the draws, or "
            "choose a smaller box."
        )
    return found + floor_warnings(who, setup.on_floor)


def floor_warnings(who: str, share: float | None) -> list[str]:
    """What to say of draws that lie in the void."""
    if share is None or share <= WARN_FLOOR:
        return []
    return [
        f"{who}: {share:.0%} of the draws lie where `metric` is only the constant that keeps it from being singular "
        "(the floor of a KernelMetric; the jitter of a PullbackMetric), away from all data: choose "
        "a smaller box, or a smaller `regularization` or `jitter`."
    ]
