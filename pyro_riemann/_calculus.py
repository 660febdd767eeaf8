"""torch as the algebra that both faces share asks for it, :class:`pyro_riemann._formulas.metric.Calculus`."""

import torch as xp
from torch import broadcast_tensors as broadcast

from pyro_riemann._autodiff import directional, jacobian, second_directional
from pyro_riemann._checks import check_point
from pyro_riemann._linalg import log_abs_det, solve

__all__ = ["broadcast", "check_point", "directional", "jacobian", "log_abs_det", "second_directional", "solve", "xp"]
