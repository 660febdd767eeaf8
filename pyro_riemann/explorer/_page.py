"""The page itself: HTML, style, scripts and data in one text that needs nothing else; and a server of it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from torch import Tensor

from pyro_riemann.explorer._payload import Corner, make_payload
from pyro_riemann.vae import VAE
from pyro_riemann.vae._data import Data

SCRIPTS = (
    "random.js",
    "table.js",
    "paths.js",
    "energy.js",
    "geodesic.js",
    "brownian.js",
    "decoder.js",
    "drawing.js",
    "frames.js",
    "page.js",
)
HOST = "127.0.0.1"
_NAMES = (HOST, "localhost", "[::1]")
_HEADERS = {
    # the page itself says by their hashes which scripts may run
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def explorer_page(
    vae: VAE,
    codes: Tensor,
    labels: Tensor,
    image_shape: tuple[int, ...] | None = None,
    *,
    images: Data | None = None,
    low: Corner = None,
    high: Corner = None,
    resolution: int = 200,
    max_codes: int = 1000,
    title: str = "Latent explorer",
) -> str:
    r"""The latent explorer of a trained VAE, as one HTML page that works without a server or a network.

    The page holds two tables of 2 x 2 metrics, of the decoder's mean and of its standard deviation, from which it
    makes :math:`G = J_\mu^\top J_\mu + w\, J_\sigma^\top J_\sigma + \lambda I` for the :math:`w` and :math:`\lambda` of
    its sliders, and the weights of the decoder's mean. Between the nodes it interpolates as
    :class:`~pyro_riemann.metrics.GridMetric` does.

    Args:
        vae: a trained model with latent dimension 2 and a :class:`~pyro_riemann.vae.GaussianDecoder`.
        codes: codes of data to show, ``(n, 2)``; see :func:`~pyro_riemann.vae.encode_all`.
        labels: their classes, integers ``(n,)``, which colour them.
        image_shape: of a decoded image, (height, width), or (channels, height, width) with 1 channel or 3: red, green,
            blue; by default that of ``images`` where they have one, and else a square.
        images: the data themselves in [0, 1], ``(n, D)`` or ``(n, *image_shape)``, to show beside the decoder's images;
            or a ``Dataset`` or ``DataLoader`` of such, of which the order is that of the data set.
        low: lower corner of the plane, a number or two; by default the codes' box, enlarged by 30 % on each side.
        high: upper corner.
        resolution: nodes an axis of the tables, at least 4.
        max_codes: show so many codes at most (evenly spaced rows).
        title: heading of the page.

    Returns:
        The page. Save it as UTF-8, or serve it by :class:`PageServer`.

    Raises:
        TypeError: for images of another kind.
        ValueError: for another latent dimension, a decoder that the page cannot evaluate, a model in its warm-up,
            an empty box, or codes, labels and images that do not belong together.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=64, latent_dim=2, hidden=(8,), num_centers=5, seed=0)
        >>> page = explorer_page(vae, torch.randn(20, 2), torch.arange(20) % 10, resolution=16)
        >>> page.startswith("<!DOCTYPE html>"), "src=" in page
        (True, False)
    """
    if max_codes < 1:
        raise ValueError(f"`max_codes` must be at least 1, got {max_codes}.")
    payload = make_payload(vae, codes, labels, image_shape, images, low, high, resolution, max_codes, title)
    return assemble(payload)


def assemble(payload: dict[str, Any]) -> str:
    """The page with this payload."""
    style, script = (f"\n{text}\n" for text in (asset("page.css"), _script()))
    parts = {
        "TITLE": html.escape(payload["title"]),
        "STYLE": style,
        "STYLE_HASH": _hash(style),
        "SCRIPTS": script,
        "SCRIPTS_HASH": _hash(script),
        # "<" in a title must not end the script element
        "PAYLOAD": json.dumps(payload, allow_nan=False).replace("<", "\\u003c"),
    }
    # once over the page: a mark in a title is text
    return re.sub("@([A-Z_]+)@", lambda mark: parts[mark[1]], asset("page.html"))


def _script() -> str:
    return "\n".join(['"use strict";', *(asset(name) for name in SCRIPTS)])


def _hash(text: str) -> str:
    """What the page's own policy lets run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def asset(name: str) -> str:
    """Text of a file that lies beside this module."""
    return resources.files("pyro_riemann.explorer").joinpath(name).read_text(encoding="utf-8")


class PageServer(ThreadingHTTPServer):
    """Serve one page at the root of a loopback address; anything else is not found.

    A request must name that address as its host: a page of the internet whose name was rebound to this machine gets
    nothing. Answers forbid to be framed, sniffed, or to load anything.

    Args:
        page: the HTML text.
        port: 0 takes any free one.

    Raises:
        ValueError: if the port is out of range or in use.

    Example:
        >>> from urllib.request import urlopen
        >>> import threading
        >>> with PageServer("<!DOCTYPE html><title>one page</title>") as server:
        ...     threading.Thread(target=server.serve_forever).start()
        ...     with urlopen(server.url) as answer:
        ...         text = answer.read().decode()
        ...     server.shutdown()
        >>> text
        '<!DOCTYPE html><title>one page</title>'
    """

    daemon_threads = True

    def __init__(self, page: str, port: int = 0) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"`port` must lie in 0 ... 65535, got {port}.")
        self.body = page.encode()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ValueError(f"port {port} cannot be used ({error.strerror}): take another, or 0 for any.") from error

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def _answer(self, with_body: bool) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in {f"{name}:{self.server.server_port}" for name in _NAMES}:
            self.send_error(HTTPStatus.FORBIDDEN, "this page is for this machine alone")
            return
        if self.path.partition("?")[0] != "/":
            self.send_error(HTTPStatus.NOT_FOUND, "there is one page, at /")
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        if with_body:
            self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: one page on one's own machine needs no log."""
