"""The network interface that gloo is to use where a host's own name leads nowhere.

gloo tells the other ranks the address that this host's name resolves to. Debian's /etc/hosts gives 127.0.1.1 for it,
and then every other host connects to itself and waits in vain. The interface that leads to rank 0 is the right one.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Mapping

INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915  # netdevice(7)


def choose_gloo_interface(environment: Mapping[str, str]) -> str | None:
    """The interface towards MASTER_ADDR, or None where gloo's own choice will do.

    That is so on one host alone, when the user has chosen, and when the host's name resolves to an address that
    others can reach.
    """
    is_alone = environment.get("WORLD_SIZE", "1") == environment.get(
        "LOCAL_SIZE", environment.get("WORLD_SIZE")
    )
    if is_alone or environment.get(INTERFACE_VARIABLE):
        return None
    try:
        if not socket.gethostbyname(socket.gethostname()).startswith("127."):
            return None
    except OSError:  # a name that does not resolve at all is no better
        pass
    return find_interface(environment.get("MASTER_ADDR", ""))


def find_interface(address: str) -> str | None:
    """The interface whose own address packets to `address` would carry; None when there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # sends nothing
        except OSError:
            return None
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError:  # an interface without an address
                continue
            if socket.inet_ntoa(answer[20:24]) == own:
                return name
    return None
