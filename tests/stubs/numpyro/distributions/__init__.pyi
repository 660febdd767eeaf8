from typing import Any

from numpyro.distributions import constraints as constraints
from numpyro.distributions import kl as kl
from numpyro.distributions import transforms as transforms
from numpyro.distributions import util as util
from numpyro.distributions.distribution import Distribution as Distribution
from numpyro.distributions.distribution import ExpandedDistribution as ExpandedDistribution
from numpyro.distributions.distribution import Independent as Independent
from numpyro.distributions.distribution import MultivariateNormal as MultivariateNormal
from numpyro.distributions.distribution import Normal as Normal

def __getattr__(name: str) -> Any: ...
