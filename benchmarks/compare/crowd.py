"""A network of many devices on loopback, one of which is a gateway: ``python -m benchmarks.compare.crowd COUNT``.

Each device has an address of its own, answers each search for all devices or root devices, and describes itself as a
lamp. The gateway is that of :mod:`benchmarks.gateway_server`, and answers last.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import socket
from typing import Any, Final

from ..gateway_server import Settings, search_socket, serve

_LAMP: Final = """<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>\
<deviceType>urn:schemas-upnp-org:device:BinaryLight:1</deviceType><friendlyName>lamp</friendlyName>\
<UDN>uuid:lamp</UDN></device></root>"""
_TARGET: Final = re.compile(rb"^ST:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


class Lamps(asyncio.DatagramProtocol):
    """Answers for all devices, each from its own address."""

    def __init__(self, count: int, port: int, asker: str) -> None:
        self._port = port
        self._asker = asker
        self._sockets = []
        for number in range(count):
            device = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            device.bind((f"127.78.{number // 250}.{number % 250 + 1}", 0))
            self._sockets.append(device)

    def datagram_received(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        """Reply for every device."""
        target = _TARGET.search(datagram)
        if address[0] != self._asker or target is None or target[1] not in (b"ssdp:all", b"upnp:rootdevice"):
            return
        for device in self._sockets:
            where = f"{device.getsockname()[0]}:{self._port}"
            reply = (
                "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nEXT:\r\nST: upnp:rootdevice\r\nSERVER: lamp\r\n"
                f"USN: uuid:{where}::upnp:rootdevice\r\nLOCATION: http://{where}/lamp.xml\r\n\r\n"
            )
            device.sendto(reply.encode(), address)


async def describe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a request for a description."""
    try:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length: {len(_LAMP)}\r\n\r\n"
        writer.write((head + _LAMP).encode())
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def crowd(address: str, count: int) -> None:
    """Be the network until the input ends."""
    server = await asyncio.start_server(describe, "0.0.0.0", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Lamps(count - 1, port, address), sock=search_socket(address)
    )
    async with server:
        await serve(address, Settings())


def main() -> None:
    """Take the number of devices from the command line."""
    process = os.getpid()
    parser = argparse.ArgumentParser(description="Many devices on loopback, and one gateway.")
    parser.add_argument("count", type=int)
    parser.add_argument("--address", default=f"127.79.{process // 250 % 250 + 1}.{process % 250 + 1}")
    options = parser.parse_args()
    asyncio.run(crowd(options.address, options.count))


if __name__ == "__main__":
    main()
