"""Bytes to models and back: the messages of NAT-PMP and PCP.

Nothing in this folder does I/O or imports asyncio. A parser never raises, whatever the bytes are: what is no valid
message is None, and a parser of requests may say with which result code a server refuses it.
"""
