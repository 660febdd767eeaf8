"""Compiled programs that outlast the process."""

from __future__ import annotations

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache as jax_cache

__all__ = ["compilation_cache"]


def compilation_cache(folder: str | Path | None = None) -> Path:
    """Keep compiled programs in a folder, where later processes find them in place of compiling anew.

    Sets JAX's persistent cache for this process, with no lower limit on what a program took to compile: the programs of
    this package are many and small. It holds for all of JAX's programs, ours or not, and is for one version of JAX and
    one kind of processor at a time; JAX looks neither at code nor at data, only at the program and its flags.
    ``python -m tests.benchmarks first_nuts`` measures what it saves.

    Args:
        folder: made if missing; by default ``pyro_riemann/jax`` in the user's cache, ``$XDG_CACHE_HOME`` or
            ``~/.cache``. It can be deleted at any time.

    Returns:
        The folder.

    Raises:
        OSError: if it cannot be made.

    Source: *Persistent compilation cache* in JAX's documentation.

    Example:
        >>> import tempfile
        >>> from pyro_riemann.numpyro import compilation_cache
        >>> compilation_cache(tempfile.mkdtemp()).is_dir()
        True
        >>> jax.config.update("jax_compilation_cache_dir", None)  # and off again
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyro_riemann" / "jax"
    path = default if folder is None else Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax_cache.reset_cache()  # which a program before this call has begun elsewhere, or not at all
    return path
