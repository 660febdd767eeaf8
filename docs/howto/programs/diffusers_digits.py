"""A convolutional VAE of diffusers, trained on scikit-learn's digits, and geodesics between codes that are images."""

import torch
from diffusers import AutoencoderKL
from sklearn.datasets import load_digits

from pyro_riemann import PullbackMetric
from pyro_riemann.sampling import interpolate

torch.manual_seed(0)
images = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1  # (1797, 1, 8, 8) in [-1, 1]
blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
vae = AutoencoderKL(1, 1, **blocks, block_out_channels=(16,) * 3, norm_num_groups=4, latent_channels=1, sample_size=8)
optimizer = torch.optim.Adam(vae.parameters(), 3e-3)
for rows in torch.randperm(len(images)).repeat(8).split(64):  # yours is trained: AutoencoderKL.from_pretrained(...)
    posterior = vae.encode(images[rows]).latent_dist
    loss = (vae.decode(posterior.sample()).sample - images[rows]).square().sum() / 0.2 + posterior.kl().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

metric = PullbackMetric.from_vae(vae).requires_grad_(False)  # a code has shape (1, 2, 2), a point 4 coordinates
codes = vae.encode(images[:6]).latent_dist.mean.flatten(1).detach()
for kind in ("line", "geodesic"):
    path = interpolate(metric, codes[:3], codes[3:], lambda z: vae.decode(z.reshape(-1, 1, 2, 2)).sample, kind, 33)
    lengths = path.frames.diff(dim=0).flatten(2).norm(dim=-1).sum(0)  # of frames (33, 3, 1, 8, 8)
    print(f"{kind}: decoded curves of length", [round(length, 2) for length in lengths.tolist()])
print(f"d = {metric.dim}, converged:", path.curve.converged.tolist())
