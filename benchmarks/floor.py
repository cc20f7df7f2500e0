"""The floor: one port mapped with nothing but blocking sockets, one attempt each, nothing checked.

What a library adds to this time is its own. Only the M-SEARCH, the reply, the description and AddPortMapping
cost anything here.
"""

from __future__ import annotations

import argparse
import re
import socket
import time
from urllib.parse import urljoin, urlsplit

MULTICAST = ("239.255.255.250", 1900)
TIMEOUT = 5.0
LARGEST_DATAGRAM = 65535

SEARCH = (
    b"M-SEARCH * HTTP/1.1\r\n"
    b"HOST: 239.255.255.250:1900\r\n"
    b'MAN: "ssdp:discover"\r\n'
    b"MX: 1\r\n"
    b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
    b"\r\n"
)

LOCATION = re.compile(rb"^location:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
SERVICE = re.compile(
    rb"<serviceType>\s*(\S*:WAN(?:IP|PPP)Connection:\d)\s*</serviceType>"
    rb"(?:(?!</service>).)*<controlURL>\s*([^<\s]+)\s*</controlURL>",
    re.DOTALL,
)

ADD = """\
<?xml version="1.0"?>\r
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" \
s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>\
<u:AddPortMapping xmlns:u="{service}">\
<NewRemoteHost></NewRemoteHost>\
<NewExternalPort>{port}</NewExternalPort>\
<NewProtocol>TCP</NewProtocol>\
<NewInternalPort>{port}</NewInternalPort>\
<NewInternalClient>{client}</NewInternalClient>\
<NewEnabled>1</NewEnabled>\
<NewPortMappingDescription>floor</NewPortMappingDescription>\
<NewLeaseDuration>0</NewLeaseDuration>\
</u:AddPortMapping></s:Body></s:Envelope>\r
"""


def first_mapping(source_address: str, port: int) -> float:
    """Find the gateway and map `port`; the seconds from the search to the confirmed mapping."""
    started = time.perf_counter()
    location = _search(source_address)
    service, control_url = _describe(source_address, location)
    _add(source_address, control_url, service, port)
    return time.perf_counter() - started


def _search(source_address: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as searcher:
        searcher.settimeout(TIMEOUT)
        searcher.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source_address))
        searcher.bind((source_address, 0))
        searcher.sendto(SEARCH, MULTICAST)
        location = LOCATION.search(searcher.recv(LARGEST_DATAGRAM))
    assert location, "a reply without LOCATION"
    return location[1].decode()


def _describe(source_address: str, location: str) -> tuple[str, str]:
    service = SERVICE.search(_exchange(source_address, location, "GET"))
    assert service, "a description without a WAN connection service"
    return service[1].decode(), urljoin(location, service[2].decode())


def _add(source_address: str, control_url: str, service: str, port: int) -> None:
    body = ADD.format(service=service, port=port, client=source_address).encode()
    headers = f'SOAPAction: "{service}#AddPortMapping"\r\nContent-Type: text/xml; charset="utf-8"\r\n'
    reply = _exchange(source_address, control_url, "POST", headers, body)
    assert b"AddPortMappingResponse" in reply, reply.decode(errors="replace")


def _exchange(source_address: str, url: str, method: str, headers: str = "", body: bytes = b"") -> bytes:
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    request = (
        f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(address, TIMEOUT, (source_address, 0)) as connection:
        connection.sendall(request.encode() + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def main() -> None:
    """Print the seconds that one mapping took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source-address", required=True, help="the local address to search and map from")
    parser.add_argument("--port", type=int, required=True, help="the TCP port to map")
    arguments = parser.parse_args()
    print(f"{first_mapping(arguments.source_address, arguments.port):.6f}")


if __name__ == "__main__":
    main()
