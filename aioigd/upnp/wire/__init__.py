"""Bytes to models and back: SSDP, HTTP replies, device descriptions, SOAP, GENA.

Nothing in this folder does I/O or imports asyncio. Everything that repairs a malformed document is here, and
whatever a device sends, a parser either returns a value or raises an :class:`~aioigd.IGDError`.
"""
