"""What goes wrong on the wire, as nftables chains; each text is the inside of one table."""

from __future__ import annotations

# nft's `ct count over 1` does nearly the same in one line, but it looks once per kernel tick and so counts a
# closed connection for some milliseconds more, which resets clients that do behave. Here a SYN takes the slot
# and a FIN or RST of either side gives it back. The RST that refuses another client must not: so `holder`.
ONE_CONNECTION_AT_A_TIME = """\
    set taken { type ipv4_addr; flags dynamic, timeout; timeout 1m; size 64; }
    set holder { type ipv4_addr . inet_service; flags dynamic, timeout; timeout 1m; size 64; }
    chain arriving {
        type filter hook input priority 0; policy accept;
        iifname != "br-lan" accept
        meta l4proto != tcp accept
        tcp flags & (fin | rst) != 0x0 ip saddr . tcp sport @holder jump leave_in
        tcp flags & (syn | ack) != syn accept
        ip saddr . tcp sport @holder accept
        ip daddr @taken reject with tcp reset
        add @taken { ip daddr } add @holder { ip saddr . tcp sport }
    }
    chain answering {
        type filter hook output priority 0; policy accept;
        tcp flags & (fin | rst) != 0x0 ip daddr . tcp dport @holder jump leave_out
    }
    chain leave_in {
        delete @taken { ip daddr } delete @holder { ip saddr . tcp sport }
    }
    chain leave_out {
        delete @taken { ip saddr } delete @holder { ip daddr . tcp dport }
    }
"""

# The packet that only says FIN never leaves the router. What the client sends once it has the reply, an
# acknowledgement or a FIN of its own, is answered with a RST. 200 bytes: more than a handshake, less than any reply.
RESET_AFTER_REPLY = """\
    chain ending {
        type filter hook output priority 0; policy accept;
        oifname != "br-lan" accept
        ip length 40-60 tcp flags & fin == fin drop
    }
    chain resetting {
        type filter hook input priority 0; policy accept;
        iifname != "br-lan" accept
        meta l4proto tcp ct reply bytes > 200 reject with tcp reset
    }
"""


def some_lost(port: str) -> str:
    """Four of thirteen, in bursts and alone, always the same ones: no run of the tests fails by chance."""
    return f"""\
    chain losing {{
        type filter hook prerouting priority 0; policy accept;
        udp {port} numgen inc mod 13 {{ 0, 3, 4, 9 }} drop
    }}
"""


def lost_datagrams(port: str, percent: int) -> str:
    """`port` is "dport N" or "sport N"; the percentage goes from 1 to 100, each datagram by chance."""
    return f"""\
    chain losing {{
        type filter hook prerouting priority 0; policy accept;
        udp {port} numgen random mod 100 <= {percent - 1} drop
    }}
"""
