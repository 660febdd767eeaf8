"""Distances and draws in parts, by joblib: on this machine, or on the cluster of Dask whose address is given."""

import sys
from contextlib import nullcontext

import joblib
import torch

from pyro_riemann import Hyperbolic, KernelMetric, RiemannianNormal


def draw(law, count, seed):
    with torch.random.fork_rng(devices=[]):  # a worker does several parts, in any order
        torch.manual_seed(seed)
        return law.sample((count,))


def parts(metric, law, z, y, count):
    pairs = zip(z.split(50), y.split(50), strict=True)
    distances = joblib.Parallel(n_jobs=count)(joblib.delayed(metric.dist)(*ends) for ends in pairs)
    draws = joblib.Parallel(n_jobs=count)(joblib.delayed(draw)(law, 500, seed) for seed in range(4))
    return torch.cat(distances), torch.cat(draws)


if __name__ == "__main__":
    torch.manual_seed(0)
    z, y = torch.randn(2, 200, 2) / 2
    metric = KernelMetric(z[:30], torch.full((30, 2), 4.0), bandwidth=1.0)
    law = RiemannianNormal(torch.zeros(2), 0.5, Hyperbolic(2))
    if cluster := sys.argv[1:]:
        from dask.distributed import Client
    with Client(*cluster) if cluster else nullcontext(), joblib.parallel_config("dask" if cluster else "loky"):
        distances, draws = parts(metric, law, z, y, -1 if cluster else 2)
    print(f"{len(distances)} distances, mean {distances.mean():.5f}")
    print(f"{len(draws)} draws, mean square {draws.square().mean():.5f}")
