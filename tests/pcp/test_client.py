"""How a request gets its reply: when it is sent again, what is believed, and what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv6Address

import pytest

from aioigd.core.limiter import FIRST_WINDOW, LARGEST_WINDOW, Limiter
from aioigd.errors import DeadlineError, NoRouteError, TransportError
from aioigd.pcp.client import FIRST_PAUSE, MAX_SENT, Doubtful, PcpClient, pauses
from aioigd.pcp.wire import pcp
from aioigd.testing import EmulatedGateway, Hooks, PcpQuery, loopback_address, quirk, quirks

from ..leases import virtual
from ..support import sockets
from ..testing.test_gateway import on_linux
from .loops import has_coarse_clock, has_no_readers, tells_of_icmp_errors

REQUEST = b"\0\0"
REPLY = b"\0\x80\0\0\0\0\0\0\x0b\x16\x21\x2c"


def any_reply(datagram: bytes) -> bytes | None:
    return datagram


def no_reply(datagram: bytes) -> bytes | None:
    return None


def soon(seconds: float = 5.0) -> Callable[[], float]:
    return lambda: asyncio.get_running_loop().time() + seconds


@asynccontextmanager
async def router(*quirks: object) -> AsyncIterator[tuple[EmulatedGateway, PcpClient]]:
    async with EmulatedGateway(*quirks, address=None, protocols=("pcp", "nat-pmp")) as gateway:  # type: ignore[arg-type]
        yield gateway, PcpClient(gateway.address, gateway.pcp_port, gateway.address)


def test_pauses_double_and_differ_a_little() -> None:
    for _ in range(100):
        got = list(pauses())
        assert len(got) == MAX_SENT - 1
        for number, pause in enumerate(got):
            assert 0.9 <= pause / (FIRST_PAUSE * 2**number) <= 1.1


async def test_one_datagram_is_enough_where_nothing_is_lost() -> None:
    async with router() as (gateway, client):
        assert (await client.request(REQUEST, any_reply, soon()))[:2] == REPLY[:2]
        assert len(gateway.requests) == 1
        assert gateway.requests[0].sender[0] == gateway.address


async def test_each_request_comes_from_another_port() -> None:
    async with router() as (gateway, client):
        for _ in range(5):
            await client.request(REQUEST, any_reply, soon())
        assert len({each.sender[1] for each in gateway.requests}) > 1


# Loss: a fixed pattern, on a clock that jumps


def lost(requests: Sequence[int] = (), replies: Sequence[int] = ()) -> object:
    """Return a quirk by which these requests, and the replies to these, are lost."""

    @quirk("pcp", reason="To test loss.", source="this test")
    def loses() -> Hooks:
        """Loses what it is told to."""
        heard = 0

        def hears(query: PcpQuery) -> bool:
            nonlocal heard
            heard += 1
            return heard not in requests

        return Hooks(pcp_hears=hears, pcp_datagrams=lambda query, sent: () if heard in replies else sent)

    return loses


@on_linux
@pytest.mark.parametrize(
    ("requests", "replies", "sent"),
    [((), (), 1), ((1,), (), 2), ((), (1,), 2), ((1, 3), (2,), 4), (range(1, 9), (), 9)],
)
def test_what_is_lost_is_sent_again(requests: Sequence[int], replies: Sequence[int], sent: int) -> None:
    async def main() -> None:
        async with router(lost(requests, replies)) as (gateway, client):
            assert await client.request(REQUEST, any_reply, soon(200.0))
            assert len(gateway.requests) == sent
            gaps = [later.time - one.time for one, later in zip(gateway.requests, gateway.requests[1:], strict=False)]
            for number, gap in enumerate(gaps):
                assert gap == pytest.approx(FIRST_PAUSE * 2**number, rel=0.11)

    virtual.run(main())


@on_linux
def test_it_is_sent_nine_times_at_most() -> None:
    async def main() -> None:
        async with router(quirks.silent_port) as (gateway, client):
            with pytest.raises(DeadlineError, match="did not answer by PCP or NAT-PMP in time"):
                await client.request(REQUEST, any_reply, soon(1000.0))
            assert len(gateway.requests) == MAX_SENT
            assert asyncio.get_running_loop().time() == pytest.approx(1000.0, abs=1)

    virtual.run(main())


@on_linux
def test_it_ends_at_the_deadline() -> None:
    async def main() -> None:
        async with router(quirks.silent_port) as (gateway, client):
            started = asyncio.get_running_loop().time()
            with pytest.raises(DeadlineError):
                await client.request(REQUEST, any_reply, soon(1.0))
            assert asyncio.get_running_loop().time() - started == pytest.approx(1.0, abs=0.01)
            assert len(gateway.requests) == 3

    virtual.run(main())


@on_linux
@pytest.mark.waits
async def test_a_router_that_does_not_cope_is_asked_less_at_once() -> None:
    """It answers late, and what was sent again meanwhile makes that worse."""
    async with router(quirks.slow_pcp(0.3)) as (gateway, _):
        limiter = Limiter()
        slow = PcpClient(gateway.address, gateway.pcp_port, gateway.address, limiter)
        await asyncio.gather(*(slow.request(REQUEST, any_reply, soon(30.0)) for _ in range(4)))
        assert limiter.window < FIRST_WINDOW


# What is believed


@on_linux
@pytest.mark.parametrize("name", ["pcp_from_other_address", "pcp_from_other_port"])
async def test_a_reply_from_elsewhere_is_none(name: str) -> None:
    async with router(name) as (_, client):
        with pytest.raises(DeadlineError):
            await client.request(REQUEST, any_reply, soon(0.05))


async def test_what_is_no_answer_is_not_waited_for_any_longer_than_for_silence() -> None:
    seen = []

    def read(datagram: bytes) -> bytes | None:
        seen.append(datagram)
        return datagram if len(seen) == 4 else None

    async with router(quirks.repeats_replies(5)) as (gateway, client):
        assert await client.request(REQUEST, read, soon())
        assert len(seen) == 4
        assert len(gateway.requests) == 1


async def test_an_error_of_the_reader_is_raised() -> None:
    def read(datagram: bytes) -> bytes | None:
        raise LookupError("a slip of its author")

    async with router() as (_, client):
        with pytest.raises(LookupError, match="a slip"):
            await client.request(REQUEST, read, soon())


async def test_what_anybody_could_have_sent_counts_only_if_nothing_better_comes() -> None:
    def read(datagram: bytes) -> bytes | Doubtful[bytes]:
        seen.append(datagram)
        return datagram if len(seen) == 3 else Doubtful(b"no")

    for times, answer in ((3, REPLY[:2]), (2, b"no")):
        seen: list[bytes] = []
        async with router(quirks.repeats_replies(times)) as (gateway, client):
            assert (await client.request(REQUEST, read, soon()))[:2] == answer
            assert len(gateway.requests) == 1


# What cannot be sent


@on_linux
async def test_a_closed_port_is_heard_of_at_once() -> None:
    with loopback_address() as address:
        with pytest.raises(TransportError, match="nobody listens") as caught:
            await PcpClient(address, 5351).request(REQUEST, any_reply, soon(60.0))
        assert not caught.value.may_have_arrived
        assert not isinstance(caught.value, NoRouteError)


async def test_nothing_leaves_loopback_while_the_guard_is_on() -> None:
    for host in ("192.0.2.1", "fe80::1%1"):
        with pytest.raises(NoRouteError, match="AIOIGD_LOOPBACK_ONLY is set"):
            await PcpClient(host, 5351).request(REQUEST, any_reply, soon())


async def test_from_an_address_that_is_not_ours_nothing_can_be_sent() -> None:
    with pytest.raises(NoRouteError, match="no route to 127"):
        await PcpClient("127.0.0.1", 5351, "192.0.2.7").request(REQUEST, any_reply, soon())


# Many at once, and those that nobody waits for


@on_linux
@pytest.mark.waits
async def test_many_are_out_at_once_but_not_all() -> None:
    async with router(quirks.slow_pcp(0.05)) as (gateway, client):
        before = sockets()
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, len(sockets() - before))
                await asyncio.sleep(0.005)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(client.request(REQUEST, any_reply, soon(30.0)) for _ in range(100)))
        watching.cancel()
        assert FIRST_WINDOW <= most <= LARGEST_WINDOW
        assert len(gateway.requests) == 100


@on_linux
async def test_nothing_is_left_whenever_it_is_cancelled() -> None:
    async with router("silent_port") as (_, client):
        before = sockets()
        for pause in (0.0, 0.001, 0.01):
            asking = asyncio.create_task(client.request(REQUEST, any_reply, soon()))
            await asyncio.sleep(pause)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        await asyncio.sleep(0)
        assert sockets() == before


@on_linux
@pytest.mark.waits
async def test_a_request_that_waits_has_not_begun() -> None:
    """Its deadline is asked for when it may go."""
    async with router(quirks.slow_pcp(0.2)) as (_, client):
        sent: list[int] = []

        def asked(number: int) -> Callable[[], float]:
            return lambda: sent.append(number) or asyncio.get_running_loop().time() + 30.0  # type: ignore[func-returns-value]

        asking = [asyncio.create_task(client.request(REQUEST, any_reply, asked(number))) for number in range(8)]
        await asyncio.sleep(0.01)
        assert sent == list(range(FIRST_WINDOW))
        await asyncio.gather(*asking)
        assert sent == list(range(8))


@on_linux
async def test_a_loop_without_readers_gets_a_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    async with router(lost((1,))) as (gateway, client):
        has_no_readers(monkeypatch)
        before = sockets()
        assert (await client.request(REQUEST, any_reply, soon()))[:2] == REPLY[:2]
        assert len(gateway.requests) == 2
        for pause in (0.0, 0.001, 0.01):
            asking = asyncio.create_task(client.request(REQUEST, no_reply, soon()))
            await asyncio.sleep(pause)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        await asyncio.sleep(0.01)
        assert sockets() == before


@pytest.mark.one_loop
async def test_a_loop_without_readers_tells_that_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    async with router(quirks.silent_port) as (_, client):
        has_no_readers(monkeypatch)
        tells_of_icmp_errors(monkeypatch)
        with pytest.raises(TransportError, match="nobody listens"):
            await client.request(REQUEST, no_reply, soon())


@pytest.mark.one_loop
async def test_a_coarse_clock_adds_no_datagram_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with router(quirks.silent_port) as (gateway, client):
        has_coarse_clock(monkeypatch, 1 / 16)
        for _ in range(3):
            gateway.requests.clear()
            with pytest.raises(DeadlineError):
                await client.request(REQUEST, no_reply, soon(0.07))
            await asyncio.sleep(1 / 8)
            assert len(gateway.requests) == 1


async def test_it_works_over_ipv6() -> None:
    async with EmulatedGateway(address="::1", protocols=("pcp",)) as gateway:
        request = pcp.build_request(pcp.Request(pcp.Opcode.ANNOUNCE, IPv6Address("::1")))
        response = await PcpClient("::1", gateway.pcp_port).request(request, pcp.parse_response, soon())
        assert (response.opcode, response.result) == (pcp.Opcode.ANNOUNCE, 0)
