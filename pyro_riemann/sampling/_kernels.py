"""The moves of the house for any log density on a box: ``init``, then ``step`` from state to state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_riemann._checks import check_same, check_tensor
from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas.unit_mixture import log_mean
from pyro_riemann._formulas.unit_moves import HamiltonianInfo, HamiltonianState, Moves, move
from pyro_riemann._formulas.unit_tempering import NUM_MOVES, TemperedInfo, TemperedState, advance, begin
from pyro_riemann.sampling._runtime import RUNTIME

LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class HamiltonianKernel:
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

    log_density: LogDensity
    low: Tensor
    high: Tensor
    scale: Tensor | None = None
    step_size: float = 0.1
    num_leapfrog: int = 10
    jitter: float = 0.4

    def __post_init__(self) -> None:
        _check_corners(self.low, self.high)

    def init(self, position: Tensor) -> HamiltonianState:
        """The state of chains.

        Args:
            position: where they are, ``(n, d)`` in the box.

        Raises:
            TypeError: if ``position`` has another dtype or none.
            ValueError: if a chain starts outside the box.
        """
        _check_inside("position", "(n", position, self.low, self.high)
        return HamiltonianState(position, *_slopes(self.log_density)(position))

    def step(
        self, generator: torch.Generator | None, state: HamiltonianState
    ) -> tuple[HamiltonianState, HamiltonianInfo]:
        """One move of every chain.

        Args:
            generator: of the random numbers; the global one if None.
            state: from :meth:`init` or the last step.
        """
        scale = self.high - self.low if self.scale is None else self.scale
        moves = Moves(self.low, self.high, scale, torch.full_like(scale[0], self.step_size))
        with torch.no_grad():
            return move(RUNTIME, _slopes(self.log_density), moves, generator, state, self.num_leapfrog, self.jitter)


@dataclass(frozen=True, eq=False)
class TemperedKernel:
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

    log_start: LogDensity
    log_density: LogDensity
    low: Tensor
    high: Tensor
    num_moves: int = NUM_MOVES

    def __post_init__(self) -> None:
        _check_corners(self.low, self.high)

    def init(self, particles: Tensor) -> TemperedState:
        """The state of draws of the start.

        Args:
            particles: the draws, ``(num_islands, n, d)`` in the box.

        Raises:
            TypeError: if ``particles`` has another dtype or none.
            ValueError: if a particle lies outside the box, or there are fewer than two islands.
        """
        _check_inside("particles", "(num_islands, n", particles, self.low, self.high)
        if len(particles) < 2:
            raise ValueError("`particles` has one island: the error of the integral needs two at least.")
        return begin(torch, particles, torch.zeros_like(particles[:, 0, 0]))

    def step(self, generator: torch.Generator | None, state: TemperedState) -> tuple[TemperedState, TemperedInfo]:
        """One rise of the temperature.

        Args:
            generator: of the random numbers; the global one if None.
            state: from :meth:`init` or the last step; at ``temperature`` 1 it has arrived.
        """
        start, target = _slopes(self.log_start), _slopes(self.log_density)
        with torch.no_grad():
            return advance(RUNTIME, start, target, generator, state, self.low, self.high, self.num_moves)

    def log_integral(self, state: TemperedState) -> Estimate:
        """Log of the integral of the target with respect to dz over the box, and its standard error, scalars.

        Args:
            state: at ``temperature`` 1.

        Raises:
            ValueError: before that.
        """
        if not bool(state.temperature >= 1):
            raise ValueError(f"`state` is at temperature {float(state.temperature):.2g}: step on until it is 1.")
        return Estimate(*log_mean(RUNTIME, state.log_mass))


def _slopes(log_density: LogDensity) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def slopes(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            point = z.detach().requires_grad_()
            value = log_density(point)
            (gradient,) = torch.autograd.grad(value.sum() + 0 * point.sum(), point)
        return value.detach(), gradient

    return slopes


def _check_corners(low: Tensor, high: Tensor) -> None:
    check_same("high", check_tensor("high", high), check_tensor("low", low))
    if low.dim() != 1 or low.shape != high.shape or not bool((low < high).all()):
        raise ValueError(
            f"`low` and `high` must be corners (d,), `low` strictly below `high`, got {tuple(low.shape)} and "
            f"{tuple(high.shape)}."
        )


def _check_inside(name: str, shape: str, points: Tensor, low: Tensor, high: Tensor) -> None:
    check_same(name, check_tensor(name, points), low)
    if points.dim() != shape.count(",") + 2 or points.shape[-1] != len(low):
        raise ValueError(f"`{name}` must have shape {shape}, {len(low)}), got {tuple(points.shape)}.")
    inside = ((points >= low) & (points <= high)).all(-1)
    if not bool(inside.all()):
        raise ValueError(f"`{name}` has {int((~inside).sum())} points outside the box.")
