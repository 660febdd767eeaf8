"""JAX's switch of precision, under the name that the installed version has for it."""

from __future__ import annotations

import jax
import jax.experimental

# before jax 0.8 it was experimental; from then on the old name warns
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
