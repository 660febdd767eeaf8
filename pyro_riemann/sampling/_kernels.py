"""The moves of the house for any log density on a box: ``init``, then ``step`` from state to state."""

from __future__ import annotations

from dataclasses import dataclass

from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas.kernels import Hamiltonian, Tempered
from pyro_riemann._formulas.unit_tempering import TemperedState
from pyro_riemann.sampling._runtime import RUNTIME


@dataclass(frozen=True, eq=False)
class HamiltonianKernel(Hamiltonian):
    r"""Hamiltonian Monte Carlo for any log density on a box, all chains in one batch.

    The particle bounces off the walls of the box, so that no proposal is lost. The law need not be normalised. The
    interface is that of BlackJAX: a state goes in, a state and information about the move come out.

    Args:
        log_density: log density with respect to dz, maps points ``(n, d)`` to ``(n,)``, row by row; differentiable.
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.
        scale: length scale of the density in each coordinate, ``(d)``; the mass is ``scale ** -2``. By default the
            widths of the box.
        step_size: of the leapfrog, in units of ``scale``.
        num_leapfrog: leapfrog steps in a move.
        jitter: each chain shortens its steps by a random share of up to this much.

    Raises:
        TypeError, ValueError: naming the argument at fault.

    Source: Neal (2011), *MCMC using Hamiltonian dynamics*, section 5.5.1 for the walls.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> low, high = -torch.ones(2), torch.ones(2)
        >>> kernel = HamiltonianKernel(lambda z: 2 * z.sum(-1), low, high, step_size=0.1)
        >>> state = kernel.init(torch.zeros(2000, 2))
        >>> for _ in range(20):
        ...     state, info = kernel.step(generator, state)
        >>> mean = 1 / torch.tanh(torch.tensor(2.0)) - 1 / 2  # of a truncated exponential law
        >>> bool((state.position.mean(0) - mean).abs().max() < 0.05), bool(info.acceptance.mean() > 0.8)
        (True, True)
    """

    face = RUNTIME


@dataclass(frozen=True, eq=False)
class TemperedKernel(Tempered):
    r"""Sequential Monte Carlo from any law that can be drawn from to any log density, both on a box.

    Populations follow :math:`p_0^{1 - b} p^b`. A step raises b as far as 70 % of the particles of every island allow,
    resamples systematically, and moves the particles on by Hamiltonian Monte Carlo; at b = 1 they are draws of p. The
    islands are independent of each other: their spread is the error of :meth:`log_integral`.

    Args:
        log_start: log density of the start with respect to dz, normalised on the box; maps ``(n, d)`` to ``(n,)``.
        log_density: log density of the target with respect to dz, not normalised; likewise.
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.
        num_moves: Hamiltonian moves at each temperature.

    Raises:
        TypeError, ValueError: naming the argument at fault.

    Source: Del Moral, Doucet & Jasra (2006), *Sequential Monte Carlo samplers*.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> low, high = torch.zeros(3), torch.ones(3)
        >>> kernel = TemperedKernel(lambda z: 0 * z[:, 0], lambda z: 20 * z.sum(-1), low, high)
        >>> state = kernel.init(torch.rand(8, 128, 3, generator=generator))
        >>> while state.temperature < 1:
        ...     state, info = kernel.step(generator, state)
        >>> value, error = kernel.log_integral(state)
        >>> exact = 3 * (torch.tensor(20.0).expm1() / 20).log()
        >>> bool((value - exact).abs() < 4 * error), state.particles.shape
        (True, torch.Size([8, 128, 3]))
    """

    face = RUNTIME

    def log_integral(self, state: TemperedState) -> Estimate:
        """Log of the integral of the target with respect to dz over the box, and its standard error, scalars.

        Args:
            state: at ``temperature`` 1.

        Raises:
            ValueError: before that.
        """
        return Estimate(*self._integral(state))
