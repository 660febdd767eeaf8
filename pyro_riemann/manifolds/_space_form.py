"""What the sphere and hyperbolic space share: constant curvature, in whatever chart."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from pyro_riemann._formulas import exact_kernels, folding, space_form
from pyro_riemann.manifolds._heat_kernel import ExactKernels
from pyro_riemann.metrics._flat import ClosedForm


class SpaceForm(space_form.SpaceForm[Tensor], ClosedForm):
    """The charts of constant curvature on tensors."""

    kernels: ClassVar[exact_kernels.ExactKernels] = ExactKernels()

    def extra_repr(self) -> str:
        return f"dim={self.dim}, curvature={self.curvature:g}"

    def _num_turns(self, time: Tensor) -> int:
        return folding.num_turns(_longest(time), self.dim)


def _longest(time: Tensor) -> float:
    """The longest of the times; infinite where values cannot be read (``torch.jit.trace``, ``torch.vmap``)."""
    try:
        return math.inf if torch.jit.is_tracing() or time.numel() == 0 else float(time.detach().max())
    except RuntimeError:
        return math.inf
