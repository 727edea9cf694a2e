"""The address of a Workload API."""

from __future__ import annotations

import ipaddress
import re

from ..errors import Unusable


def target(text: str) -> str:
    """Parses `unix:///path` or `tcp://IP:port` and returns it as grpcio writes it. Raises `Unusable`."""
    if text.startswith("tcp://"):
        host, _, port = text[6:].rpartition(":")
        try:
            address = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
            if re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) < 65536 and (address.version == 6) == host.startswith("["):
                return f"ipv{address.version}:{host}:{port}"
        except ValueError:
            pass
    elif text.startswith("unix:"):
        path = text[5:]
        # Between the second and the third slash there would be an authority.
        path = path[2:] if path.startswith("//") else path
        whole = path.startswith("/") and not path.startswith("//") and not path.endswith("/")
        if whole and not re.search(r"[%?#\0]", path):
            return f"unix:{path}"
    raise Unusable("endpoint", f"`{text[:256]}` is not the address of a Workload API: write unix:///path or tcp://IP:port")
