"""A server of one page, for this machine alone."""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
