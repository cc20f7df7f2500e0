"""A server behind a VPN: the provider's gateway maps a port of its choice, by PCP or NAT-PMP, for a minute at a time.

python vpn.py --gateway 10.2.0.1
"""

import argparse
import asyncio
import contextlib
import signal

import aioigd


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say hello, whatever was asked."""
    await reader.readline()
    writer.write(b"hello\n")
    await writer.drain()
    writer.close()


async def main(gateway: str) -> None:
    """Serve until it is told to stop, and tell the port whenever it changes."""
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)

    # The address in the tunnel: the only one that packets from there arrive at.
    here = aioigd.source_address_for(gateway.partition(":")[0])
    server = await asyncio.start_server(answer, here, 0)
    async with (
        server,
        aioigd.PortMapper(gateway=gateway, protocols=("pcp", "nat-pmp")) as mapper,
        # Any external port: these gateways choose it, and tell it in their reply.
        mapper.lease(0, internal_port=server.sockets[0].getsockname()[1], proto="TCP") as lease,
    ):
        print(f"open at {lease.external_address}:{lease.external_port}", flush=True)
        async for change in lease.changes():
            print(f"{change.kind.value}: {change.external_address}:{change.external_port}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--gateway", default="10.2.0.1", help="the IPv4 address of the VPN's gateway, with a port or without"
    )
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main(parser.parse_args().gateway))
