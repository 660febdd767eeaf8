"""``python -m tests.faults``: each damage of a checkpoint and what becomes of it, as a table; then 50 SIGKILLs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch

from pyro_riemann.vae import load_checkpoint, train
from pyro_riemann.vae._checkpoint import part_of
from tests.faults._cases import CASES, CONFIG, data, tiny_vae
from tests.faults._kills import kill_and_resume


def outcome(case: str, folder: Path, expected: dict[str, torch.Tensor]) -> tuple[str, bool]:
    """The reason of the refusal, and whether a fresh start ends like an undisturbed run."""
    CASES[case](folder)
    try:
        train(tiny_vae(), data(), config=CONFIG, checkpoint=folder, progress=False)
        reason = "ACCEPTED"
    except ValueError as error:
        reason = str(error).replace(str(folder), "RUN")
    except Exception as error:
        reason = f"RAW {type(error).__name__}"
    vae = tiny_vae()
    train(vae, data(), config=CONFIG, checkpoint=folder, progress=False, resume=False)
    return reason, all(torch.equal(value, vae.state_dict()[key]) for key, value in expected.items())


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        train(tiny_vae(), data(), config=CONFIG, checkpoint=root / "whole", progress=False)
        expected = part_of(load_checkpoint(root / "whole")[0], "model/")
        print("| damage | what `train` says (`RUN` is the folder) | fresh start |\n| --- | --- | --- |")
        refused = recovered = 0
        for index, case in enumerate(CASES):
            folder = root / str(index) / "run"
            shutil.copytree(root / "whole", folder)
            reason, again = outcome(case, folder, expected)
            refused += not reason.startswith(("ACCEPTED", "RAW"))
            recovered += again
            print(f"| {case} | {reason.split('. ')[0]} | {'bit-equal' if again else 'UNLIKE'} |")
        print(f"\n{len(CASES)} damages: {refused} refused in one sentence, {recovered} started afresh, bit-equal.\n")
        print(kill_and_resume(root / "kills", 50))


if __name__ == "__main__":
    main()
