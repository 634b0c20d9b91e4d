"""Bytes that a process has sent over TCP, and the least that an all-reduce must send.

Counted at the sockets (Linux's TCP_INFO), so that other processes on the same interface do not
count, nor headers and acknowledgements.
"""

import os
import socket
import struct

SENT_AT = 200
"""Offset in struct tcp_info of tcpi_bytes_sent and tcpi_bytes_retrans, 8 bytes each."""


def sent_bytes() -> int:
    """Payload that the open TCP sockets of this process have sent, each byte once."""
    return sum(map(_sent, os.listdir("/proc/self/fd")))


def _sent(descriptor: str) -> int:
    """Of one descriptor; 0 for what is no TCP socket."""
    try:
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
            return 0
        with socket.socket(fileno=os.dup(int(descriptor))) as copy:
            info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except OSError:  # closed meanwhile, or of another family
        return 0
    if len(info) < SENT_AT + 16:
        raise RuntimeError("this kernel's TCP_INFO does not count bytes: Linux 4.19 is needed.")
    sent, again = struct.unpack_from("QQ", info, SENT_AT)
    return int(sent - again)


def ring_bytes(num_bytes: float, ranks: int) -> float:
    """What each rank must send to all-reduce so many bytes: 2 (R - 1) / R of them.

    The bound holds for every algorithm whose ranks send alike; a ring reaches it (Patarasuk
    and Yuan, 2009).
    """
    return 2 * (ranks - 1) / ranks * num_bytes
