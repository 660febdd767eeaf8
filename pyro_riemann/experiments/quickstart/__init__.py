"""The main job: train an R-VAE and a plain VAE, sample a latent posterior, judge everything, draw it.

Everything is written to one folder; an interrupted run resumes from the checkpoints there.
"""

from pyro_riemann.experiments._latent import straight_length
from pyro_riemann.experiments.quickstart._models import (
    MODELS,
    PRESETS,
    QuickstartConfig,
    configure,
    make_model,
    training_config,
    training_images,
)
from pyro_riemann.experiments.quickstart._run import RESULT, run

__all__ = [
    "MODELS",
    "PRESETS",
    "RESULT",
    "QuickstartConfig",
    "configure",
    "make_model",
    "run",
    "straight_length",
    "training_config",
    "training_images",
]
