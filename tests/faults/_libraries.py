"""How other libraries save and go on, each as its documentation says."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

MARK = Path(tempfile.gettempdir()) / f"ran-{os.getpid()}"


class Payload:
    """What a pickle can hold: a call that is made while it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (MARK,)


class Library:
    """How a library saves and goes on; ``edits`` are faults that need its format."""

    name = ""
    module = ""
    writes = True  # whether it has a file format of its own

    def __init__(self) -> None:
        self.edits: dict[str, Callable[[Path], object]] = {}

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    def file(self, folder: Path) -> Path:
        raise NotImplementedError

    def save_again(self, folder: Path) -> None:
        """Save where something was saved before."""
        self.save(folder)

    def load(self, folder: Path) -> None:
        """Load and go on."""
        raise NotImplementedError

    def resumes_bit_equal(self, folder: Path) -> bool | None:
        return None

    def some_number(self, folder: Path) -> bytes:
        """Bytes of the file that belong to a number."""
        raise NotImplementedError


def torch_edit(path: Callable[[Path], Path], change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = torch.load(path(folder), weights_only=False)
        change(content)
        torch.save(content, path(folder))

    return edit


def weight_edits(path: Callable[[Path], Path], key: str, name: str) -> dict[str, Callable[[Path], object]]:
    """Faults of the weight ``name`` among those that torch saved under ``key``."""
    return {
        "a weight that is NaN": torch_edit(path, lambda content: content[key][name].fill_(np.nan)),
        "a weight of another shape": torch_edit(path, lambda content: content[key].update({name: torch.ones(3, 3)})),
        "a weight less": torch_edit(path, lambda content: content[key].pop(name)),
    }


class Ours(Library):
    name, module = "pyro_riemann", "pyro_riemann"

    def __init__(self) -> None:
        from tests.faults import _cases as cases

        self.cases = cases
        signed = ("a weight that is NaN", "a weight of another shape", "a weight less", "epoch -5")
        self.edits = {fault: cases.CASES[f"signed: {fault}"] for fault in signed}
        self.edits["other data"] = lambda folder: setattr(self, "data", 1 - cases.data())
        self.edits["another learning rate"] = lambda folder: setattr(self, "rate", 0.5)

    def save(self, folder: Path, epochs: int = 1) -> None:
        self.data, self.rate = self.cases.data(), 1e-3
        self._train(folder, epochs)

    def _train(self, folder: Path | None, epochs: int) -> Any:
        from pyro_riemann.vae import TrainingConfig, train

        config = TrainingConfig(warm_up_epochs=2, epochs=epochs, batch_size=10, kl_ramp=0.2, learning_rate=self.rate)
        vae = self.cases.tiny_vae()
        train(vae, self.data, config=config, checkpoint=folder, progress=False)
        return vae

    def save_again(self, folder: Path) -> None:
        from pyro_riemann.vae import load_checkpoint, save_checkpoint

        save_checkpoint(folder, *load_checkpoint(folder))

    def file(self, folder: Path) -> Path:
        return self.cases.tensors(folder)

    def some_number(self, folder: Path) -> bytes:
        from pyro_riemann.vae import load_checkpoint

        return load_checkpoint(folder)[0]["model/encoder.loc.0.weight"].numpy().tobytes()

    def load(self, folder: Path) -> None:
        self._train(folder, 1)

    def resumes_bit_equal(self, folder: Path) -> bool:
        from pyro_riemann import _safe_points

        self.data, self.rate = self.cases.data(), 1e-3
        whole, calls = self._train(None, 2).state_dict(), [0]

        def stop(*_: Any) -> None:
            calls[0] += 1
            if calls[0] == 4:  # of nine steps: within the second epoch
                raise KeyboardInterrupt

        with (
            mock.patch.object(_safe_points, "SECONDS", 0.0),
            mock.patch.object(_safe_points.SafePoints, "saved", stop),
            suppress(KeyboardInterrupt),
        ):
            self._train(folder, 2)
        return all(torch.equal(value, whole[key]) for key, value in self._train(folder, 2).state_dict().items())


class Lightning(Library):
    name, module = "Lightning", "lightning"

    def __init__(self) -> None:
        import lightning

        class Model(lightning.LightningModule):
            def __init__(self, rate: float) -> None:
                super().__init__()
                self.save_hyperparameters()
                self.encoder, self.decoder = nn.Linear(4, 2), nn.Linear(2, 4)

            def training_step(self, batch: Any) -> torch.Tensor:
                z = self.encoder(batch[0])
                return (self.decoder(z + 0.1 * torch.randn_like(z)) - batch[0]).square().mean()

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.Adam(self.parameters(), self.hparams["rate"])

        self.lightning, self.model, self.rate, self.seed = lightning, Model, 1e-2, 0
        self.edits = {
            **weight_edits(self.file, "state_dict", "encoder.weight"),
            "epoch -5": torch_edit(self.file, lambda c: c.update(epoch=-5)),
            "other data": lambda folder: setattr(self, "seed", 1),
            "another learning rate": lambda folder: setattr(self, "rate", 0.5),
        }

    def fit(self, folder: Path, epochs: int, resume: Path | None = None, **settings: Any) -> Any:
        from lightning.pytorch.callbacks import ModelCheckpoint

        self.lightning.seed_everything(0, verbose=False)
        data = torch.rand(60, 4, generator=torch.Generator().manual_seed(self.seed))
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data), 20, shuffle=True)
        model = self.model(self.rate)
        trainer = self.lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[ModelCheckpoint(dirpath=folder, filename="last", enable_version_counter=False, **settings)],
        )  # fmt: skip
        trainer.fit(model, loader, ckpt_path=resume)
        return model

    def save(self, folder: Path) -> None:
        self.seed, self.rate = 0, 1e-2
        self.fit(folder, 2)

    def file(self, folder: Path) -> Path:
        return folder / "last.ckpt"

    def some_number(self, folder: Path) -> bytes:
        content = torch.load(self.file(folder), weights_only=False)
        return content["state_dict"]["encoder.weight"].numpy().tobytes()

    def load(self, folder: Path) -> None:
        self.fit(folder.parent / "again", 4, self.file(folder))

    def resumes_bit_equal(self, folder: Path) -> bool:
        self.seed, self.rate = 0, 1e-2
        whole = self.fit(folder / "whole", 4).state_dict()
        self.fit(folder / "half", 2)
        resumed = self.fit(folder / "rest", 4, folder / "half" / "last.ckpt").state_dict()
        return all(torch.equal(value, resumed[key]) for key, value in whole.items())


class Pythae(Library):
    name, module = "pythae", "pythae"
    weight = "encoder.layers.0.0.weight"

    def __init__(self) -> None:
        self.edits = weight_edits(self.file, "model_state_dict", self.weight)

    def save(self, folder: Path) -> None:
        from pythae.models import VAE, VAEConfig

        torch.manual_seed(0)
        VAE(VAEConfig(input_dim=(4,), latent_dim=2)).save(str(folder))

    def file(self, folder: Path) -> Path:
        return folder / "model.pt"

    def some_number(self, folder: Path) -> bytes:
        weights = torch.load(self.file(folder), weights_only=False)["model_state_dict"]
        return weights[self.weight].numpy().tobytes()

    def load(self, folder: Path) -> None:
        from pythae.models import AutoModel

        AutoModel.load_from_folder(str(folder))


class NumPyro(Library):
    name, module, writes = "NumPyro, state pickled", "numpyro", False

    def __init__(self) -> None:
        super().__init__()
        self.edits = {"other data": lambda folder: setattr(self, "shift", 3.0)}

    def mcmc(self, draws: int) -> Any:
        import numpyro
        import numpyro.distributions as dist
        from numpyro.infer import MCMC, NUTS

        def model() -> None:
            numpyro.sample("z", dist.Normal(self.shift, 1.0).expand([64]).to_event(1))

        return MCMC(NUTS(model), num_warmup=20, num_samples=draws, progress_bar=False)

    def save(self, folder: Path) -> None:
        import jax

        self.shift = 0.0
        mcmc = self.mcmc(10)
        mcmc.run(jax.random.PRNGKey(0))
        folder.mkdir(exist_ok=True)
        self.file(folder).write_bytes(pickle.dumps(jax.device_get(mcmc.last_state)))

    def file(self, folder: Path) -> Path:
        return folder / "state.pkl"

    def some_number(self, folder: Path) -> bytes:
        return np.asarray(pickle.loads(self.file(folder).read_bytes()).z["z"]).tobytes()

    def load(self, folder: Path) -> Any:
        mcmc = self.mcmc(10)
        mcmc.post_warmup_state = pickle.loads(self.file(folder).read_bytes())
        mcmc.run(mcmc.post_warmup_state.rng_key)
        return mcmc.get_samples()["z"]

    def resumes_bit_equal(self, folder: Path) -> bool:
        import jax

        self.save(folder)
        whole = self.mcmc(20)
        whole.run(jax.random.PRNGKey(0))
        return bool(np.array_equal(self.load(folder), whole.get_samples()["z"][10:]))


class ArviZ(Library):
    name, module = "ArviZ, netCDF", "arviz"

    def save(self, folder: Path) -> None:
        import arviz

        folder.mkdir(exist_ok=True)
        draws = np.random.default_rng(0).normal(size=(2, 500))
        arviz.from_dict(posterior={"z": draws}).to_netcdf(str(self.file(folder)))

    def file(self, folder: Path) -> Path:
        return folder / "draws.nc"

    def some_number(self, folder: Path) -> bytes:
        return np.random.default_rng(0).normal(size=(2, 500)).tobytes()

    def load(self, folder: Path) -> None:
        import arviz

        arviz.from_netcdf(str(self.file(folder))).posterior["z"].load()


KINDS: tuple[type[Library], ...] = (Ours, Lightning, Pythae, NumPyro, ArviZ)
