"""The emulated gateway carries bytes: what is mapped is open on its internet side, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aioigd import PortMapper
from aioigd.testing import EmulatedGateway

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
async def gateway() -> AsyncIterator[EmulatedGateway]:
    async with EmulatedGateway(address=None, forward=True) as gateway:
        yield gateway


@pytest.fixture
async def mapper(gateway: EmulatedGateway) -> AsyncIterator[PortMapper]:
    async with PortMapper(source_address=gateway.address) as mapper:
        yield mapper


@pytest.fixture
async def server(gateway: EmulatedGateway) -> AsyncIterator[int]:
    """The TCP and UDP port of a server behind the gateway that answers in capital letters."""

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    class Datagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(data.upper(), addr)

    listener = await asyncio.start_server(shout, gateway.address, 0)
    port: int = listener.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        Datagrams, local_addr=(gateway.address, port)
    )
    yield port
    transport.close()
    listener.close()
    await listener.wait_closed()


async def ask_tcp(gateway: EmulatedGateway, port: int, payload: bytes = b"hello") -> bytes:
    reader, writer = await asyncio.open_connection(gateway.internet_side, port)
    try:
        writer.write(payload)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


class Asker(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.replies.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        self.replies.put_nowait(repr(exc).encode())


async def ask_udp(gateway: EmulatedGateway, port: int, payload: bytes = b"hello") -> bytes:
    transport, asker = await asyncio.get_running_loop().create_datagram_endpoint(
        Asker, remote_addr=(gateway.internet_side, port)
    )
    try:
        transport.sendto(payload)
        return await asyncio.wait_for(asker.replies.get(), 2)
    finally:
        transport.close()


async def test_a_mapped_tcp_port_is_open_until_it_is_deleted(
    gateway: EmulatedGateway, mapper: PortMapper, server: int
) -> None:
    with pytest.raises(ConnectionRefusedError):
        await ask_tcp(gateway, 8080)
    await mapper.add_port_mapping(8080, server, proto="TCP")
    assert await ask_tcp(gateway, 8080) == b"HELLO"
    await mapper.delete_port_mapping(8080, "TCP")
    with pytest.raises(ConnectionRefusedError):
        await ask_tcp(gateway, 8080)


async def test_a_mapped_udp_port_is_open_until_it_is_deleted(
    gateway: EmulatedGateway, mapper: PortMapper, server: int
) -> None:
    await mapper.add_port_mapping(8080, server)
    assert await ask_udp(gateway, 8080) == b"HELLO"
    assert await ask_udp(gateway, 8080, b"again") == b"AGAIN"
    await mapper.delete_port_mapping(8080)
    assert b"refused" in await ask_udp(gateway, 8080)


async def test_a_large_payload_arrives_whole_and_is_counted(
    gateway: EmulatedGateway, mapper: PortMapper, server: int
) -> None:
    payload = bytes(range(97, 123)) * 50_000
    await mapper.add_port_mapping(8080, server, proto="TCP")
    assert await ask_tcp(gateway, 8080, payload) == payload.upper()


async def test_connections_do_not_disturb_each_other(gateway: EmulatedGateway, mapper: PortMapper, server: int) -> None:
    await mapper.add_port_mapping(8080, server, proto="TCP")
    replies = await asyncio.gather(*(ask_tcp(gateway, 8080, b"caller %d" % number) for number in range(50)))
    assert replies == [b"CALLER %d" % number for number in range(50)]


async def test_a_mapping_that_is_replaced_leads_elsewhere_at_once(
    gateway: EmulatedGateway, mapper: PortMapper, server: int
) -> None:
    await mapper.add_port_mapping(8080, 9, proto="TCP")
    with pytest.raises(ConnectionResetError):
        await ask_tcp(gateway, 8080)
    await mapper.add_port_mapping(8080, server, proto="TCP")
    assert await ask_tcp(gateway, 8080) == b"HELLO"


@pytest.mark.parametrize("proto", ["TCP", "UDP"])
async def test_a_port_can_be_deleted_and_mapped_again_at_once(
    gateway: EmulatedGateway, mapper: PortMapper, server: int, proto: str
) -> None:
    for _ in range(5):
        await mapper.add_port_mapping(8080, server, proto=proto)  # type: ignore[arg-type]
        gateway.remove_mapping(8080, "TCP" if proto == "TCP" else "UDP")
        await mapper.add_port_mapping(8080, server, proto=proto)  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        assert await (ask_tcp if proto == "TCP" else ask_udp)(gateway, 8080) == b"HELLO"


async def test_nothing_passes_when_the_lease_has_run_out(server: int, gateway: EmulatedGateway) -> None:
    now = 0.0
    async with EmulatedGateway(address=None, forward=True, clock=lambda: now) as other:
        other.add_mapping(8080, server, "TCP", internal_client=gateway.address, duration=60)
        assert await ask_tcp(other, 8080) == b"HELLO"
        now = 61.0
        with pytest.raises(ConnectionError):
            await ask_tcp(other, 8080)


async def test_a_remote_host_alone_gets_through(gateway: EmulatedGateway, mapper: PortMapper, server: int) -> None:
    await mapper.add_port_mapping(8080, server, proto="TCP", remote_host="9.9.9.9")
    with pytest.raises(ConnectionResetError):
        await ask_tcp(gateway, 8080)
    await mapper.add_port_mapping(8080, server, proto="TCP", remote_host="127.0.0.1")
    assert await ask_tcp(gateway, 8080) == b"HELLO"


async def test_mappings_to_other_machines_exist_on_paper_only(gateway: EmulatedGateway) -> None:
    gateway.add_mapping(8080, proto="TCP", internal_client="192.168.1.77")
    with pytest.raises(ConnectionRefusedError):
        await ask_tcp(gateway, 8080)


async def test_a_port_that_another_program_has_is_left_to_it(gateway: EmulatedGateway, server: int) -> None:
    async with EmulatedGateway(address=None, forward=True) as gateway:
        taken = await asyncio.start_server(lambda *_: None, gateway.internet_side, 0)
        port = taken.sockets[0].getsockname()[1]
        gateway.add_mapping(port, server, "TCP", internal_client=gateway.address)
        taken.close()
        await taken.wait_closed()
        assert len(gateway.mappings) == 1


async def test_a_restart_forgets_the_ports_and_keeps_the_internet_side(
    gateway: EmulatedGateway, mapper: PortMapper, server: int
) -> None:
    await mapper.add_port_mapping(8080, server, proto="TCP")
    before = gateway.internet_side
    await gateway.restart()
    assert gateway.internet_side == before
    with pytest.raises(ConnectionRefusedError):
        await ask_tcp(gateway, 8080)
    await mapper.add_port_mapping(8080, server, proto="TCP")
    assert await ask_tcp(gateway, 8080) == b"HELLO"


async def test_without_forwarding_there_is_no_internet_side() -> None:
    async with EmulatedGateway(address=None) as gateway:
        with pytest.raises(RuntimeError, match="forward=True"):
            gateway.internet_side  # noqa: B018 - asking is what is tested
