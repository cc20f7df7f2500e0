"""An aiohttp application whose port is open on the router for as long as it runs.

python aiohttp_server.py [--source-address ADDRESS] [--port PORT] [--leases NUMBER]
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from aiohttp import web

import aioigd


async def hello(request: web.Request) -> web.Response:
    """Say hello."""
    return web.Response(text="hello\n")


def make_app(source_address: str | None, port: int, leases: int) -> web.Application:
    """Return the application; it leases its port, and as many behind it as are wanted."""

    async def lease(app: web.Application) -> AsyncIterator[None]:
        async with aioigd.PortMapper(source_address=source_address) as mapper, AsyncExitStack() as stack:
            # required=False: the server starts without a router, too, and is mapped when there is one.
            for number in range(leases):
                one = mapper.lease(port + number, desc="aiohttp", proto="TCP", required=False)
                await stack.enter_async_context(one)
            yield

    app = web.Application()
    app.router.add_get("/", hello)
    app.cleanup_ctx.append(lease)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source-address", help="the local address of the network that the router is in")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--leases", type=int, default=1)
    options = parser.parse_args()
    app = make_app(options.source_address, options.port, options.leases)
    web.run_app(app, host=options.source_address, port=options.port)
