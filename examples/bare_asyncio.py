"""A bare asyncio server whose port is open on the router for as long as it runs, also when it is told to stop.

python bare_asyncio.py [--source-address ADDRESS]
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


async def main(source_address: str | None) -> None:
    """Serve until it is told to stop."""
    # asyncio.run() itself knows SIGINT only: any other of these would end the program on the spot, its port open.
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)

    server = await asyncio.start_server(answer, source_address or "0.0.0.0", 0)
    async with aioigd.PortMapper(source_address=source_address) as mapper, mapper.lease(server, desc="hello") as lease:
        print(f"open at {lease.external_address}:{lease.external_port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source-address", help="the local address of the network that the router is in")
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main(parser.parse_args().source_address))
