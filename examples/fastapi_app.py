"""A FastAPI application whose port is open on the router for as long as it runs.

python fastapi_app.py [--source-address ADDRESS] [--port PORT]
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

import aioigd


def make_app(source_address: str | None, port: int) -> FastAPI:
    """Return the application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            aioigd.PortMapper(source_address=source_address) as mapper,
            mapper.lease(port, desc="FastAPI", proto="TCP", required=False) as lease,
        ):
            app.state.lease = lease
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def where() -> dict[str, object]:
        """Tell where this can be reached from the internet."""
        lease = app.state.lease
        return {"state": lease.state.value, "address": str(lease.external_address), "port": lease.external_port}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source-address", help="the local address of the network that the router is in")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    app = make_app(options.source_address, options.port)
    uvicorn.run(app, host=options.source_address or "0.0.0.0", port=options.port)
