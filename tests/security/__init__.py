"""SECURITY.md, attack by attack, over real sockets on loopback."""
