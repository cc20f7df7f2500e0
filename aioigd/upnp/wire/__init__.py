"""Bytes to models and back: SSDP, device descriptions, SOAP.

Nothing in this folder does I/O or knows of asyncio. Everything that repairs a sloppy document stands here, and
whatever a device sends, a parser either returns a value or raises an :class:`~aioigd.IGDError`.
"""
