"""A worker, which takes the names of calls and says what each cost: ``python -P -m _cases CASE FOLDER``."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from . import CASES
from ._models import DECODERS


def main() -> None:
    """Read names of calls from standard input, and write the CPU seconds that each took."""
    case, folder = sys.argv[1], sys.argv[2]
    DECODERS.append(Path(folder))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    calls = CASES[case]()
    print(json.dumps(list(calls)), flush=True)
    for line in sys.stdin:
        start = time.process_time()
        try:
            calls[json.loads(line)]()
            answer: Any = time.process_time() - start
        except Exception as error:
            answer = f"{type(error).__name__}: {str(error)[:200]}"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
