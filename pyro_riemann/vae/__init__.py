"""Variational autoencoders with Riemannian priors as Pyro model/guide pairs."""

from pyro_riemann.vae._networks import DistanceImmersion, Encoder, GaussianDecoder, RBFPrecision, mlp

__all__ = ["DistanceImmersion", "Encoder", "GaussianDecoder", "RBFPrecision", "mlp"]
