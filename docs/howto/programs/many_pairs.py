"""One part of many distances, kept in a file: `many_pairs.py FOLDER PART PARTS` computes it if it is not there."""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from pyro_riemann import PullbackMetric

folder, part, parts = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if not 0 <= part < parts:
    sys.exit(f"PART must be between 0 and {parts - 1}, got {part}.")
path = folder / f"part-{part:05}-of-{parts:05}.safetensors"
if path.exists():
    sys.exit(0)  # of a job that was started again
torch.manual_seed(0)  # every job makes, or reads, the same metric and the same points
metric = PullbackMetric(torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 20)), dim=2)
codes = torch.randn(40, 2)
pairs = torch.combinations(torch.arange(len(codes))).tensor_split(parts)[part]
with torch.no_grad():
    curves = metric.geodesic(codes[pairs[:, 0]], codes[pairs[:, 1]])
folder.mkdir(parents=True, exist_ok=True)
result = {"pairs": pairs, "distance": curves.length, "converged": curves.converged}
save_file(result, partial := path.with_suffix(f".{os.getpid()}"))
partial.replace(path)
print(f"{len(pairs)} distances, {int(curves.converged.sum())} of them converged")
