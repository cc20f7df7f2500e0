"""UPnP on the network: each module does one thing once, without cache, retry or policy."""
