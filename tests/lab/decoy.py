"""A device that answers every search at once and says that it is the gateway, which it is not.

It does not wait, so its reply is there before that of any real router.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import struct
import threading
from types import TracebackType

from .network import Lab, Place

GROUP = "239.255.255.250"

USUAL_LOCATION = "http://{host}:{port}/d.xml"

DESCRIPTION = b"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<friendlyName>Decoy</friendlyName><UDN>uuid:00000000-0000-0000-0000-00000000dec0</UDN>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
<controlURL>/ctl</controlURL></service></serviceList></device></root>
"""


class Decoy:
    """Runs in threads of its own; a context manager.

    `location` may have {host} and {port} of its web server in it. With `silent` that server accepts connections and
    says nothing on them. With `by_unicast` it hears only what is sent to its own address. Its replies come from
    `reply_from`, another address that it has. `requests` are the request lines that it was sent.
    """

    def __init__(
        self,
        lab: Lab,
        place: Place,
        address: str,
        *,
        location: str = USUAL_LOCATION,
        silent: bool = False,
        by_unicast: bool = False,
        reply_from: str = "",
    ) -> None:
        self.requests: list[str] = []
        self._silent = silent
        self._over = threading.Event()
        with lab.inside(place):
            # Not http.server's own class, which asks the DNS for its name.
            self._web = socketserver.ThreadingTCPServer((address, 0), self._handler())
            self._web.daemon_threads = True
            self._ssdp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._ssdp.bind((address if by_unicast else GROUP, 1900))
            if not by_unicast:
                membership = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(address))
                self._ssdp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._sender.bind((reply_from or address, 0))
        self.port: int = self._web.server_address[1]
        self.location = location.format(host=address, port=self.port)
        self._threads = [
            threading.Thread(target=self._web.serve_forever, args=(0.05,), name="decoy web", daemon=True),
            threading.Thread(target=self._answer_searches, name="decoy ssdp", daemon=True),
        ]

    def __enter__(self) -> Decoy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        # Wakes the thread from recvfrom().
        with contextlib.suppress(OSError):
            self._ssdp.shutdown(socket.SHUT_RDWR)
        self._web.shutdown()
        for thread in self._threads:
            thread.join(5.0)
        self._web.server_close()
        self._ssdp.close()
        self._sender.close()

    def _answer_searches(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                search, searcher = self._ssdp.recvfrom(65536)
                target = next((line[3:].strip() for line in search.splitlines() if line[:3].upper() == b"ST:"), b"")
                if target:
                    reply = [b"HTTP/1.1 200 OK", b"EXT:", b"ST: " + target, b"LOCATION: " + self.location.encode()]
                    self._sender.sendto(b"\r\n".join([*reply, b"", b""]), searcher)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        decoy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(DESCRIPTION)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(b"<nonsense/>")

            def log_message(self, *_: object) -> None:
                pass

            def _answer(self, body: bytes) -> None:
                decoy.requests.append(self.requestline)
                if decoy._silent:
                    decoy._over.wait()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler
