# NumPyro ships no types. These are those of what the package derives from or calls; of all else nothing is known.
from typing import Any

def __getattr__(name: str) -> Any: ...
