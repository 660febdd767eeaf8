"""Benchmarks whose peer is not installed (``pip install --group benchmark``) are not collected."""

from __future__ import annotations

from importlib.util import find_spec

PEERS = {"test_geodesics.py": "stochman"}

collect_ignore = [name for name, peer in PEERS.items() if find_spec(peer) is None]
