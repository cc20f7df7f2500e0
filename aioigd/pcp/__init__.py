"""PCP (RFC 6887) and NAT-PMP (RFC 6886): one UDP port of the router, two protocols, told apart by their first byte."""
