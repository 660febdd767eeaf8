"""An R-VAE on the digits of scikit-learn, trained by all processes that torchrun starts."""

import os
import sys

import torch
from sklearn.datasets import load_digits

from pyro_riemann.vae import TrainingConfig, make_vae, train

cuda = torch.cuda.is_available()
torch.distributed.init_process_group("nccl" if cuda else "gloo")
device = f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu"
images = torch.tensor(load_digits().data / 16, dtype=torch.float32)  # each process has all of them
vae = make_vae(64, 2, "heat_kernel", "normal", "grid", hidden=(32,), num_centers=20, grid_resolution=24, seed=0)
config = TrainingConfig(warm_up_epochs=int(sys.argv[2]), epochs=int(sys.argv[3]), batch_size=200)
history = train(vae, images[:1500], images[1500:], config, device=device, checkpoint=sys.argv[1], distributed=True)
if torch.distributed.get_rank() == 0:
    print("ELBO of held-out digits, by epochs:", [round(value, 3) for value in history["validation"]])
torch.distributed.destroy_process_group()
