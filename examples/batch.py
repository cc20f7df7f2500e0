"""A batch of ports at once, and what changes about them.

python batch.py [--source-address ADDRESS] FIRST LAST
"""

import argparse
import asyncio
import contextlib

import aioigd


async def main(source_address: str | None, first: int, last: int) -> None:
    """Hold the ports, both TCP and UDP, until Ctrl+C."""
    async with (
        aioigd.PortMapper(source_address=source_address) as mapper,
        mapper.lease(list(range(first, last + 1)), desc="batch", proto=["TCP", "UDP"]) as lease,
    ):
        print(f"{len(lease.mappings)} mappings are {lease.state.value} at {lease.external_address}", flush=True)
        async for change in lease.changes():
            print(f"{change.at:%H:%M:%S} {change.kind.value}: {change.external_address}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source-address", help="the local address of the network that the router is in")
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(options.source_address, options.first, options.last))
