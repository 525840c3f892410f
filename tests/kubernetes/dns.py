"""What tests need of a cluster's name service: dns.py API TOKEN ADDRESS.

A records of SERVICE.NAMESPACE.svc.cluster.local, and of POD.SERVICE.NAMESPACE.svc.cluster.local for
the pods of a StatefulSet, as the API server has them. All other names do not exist.
"""

import json
import socket
import ssl
import struct
import sys
import time
import urllib.error
import urllib.request
from typing import Any

DOMAIN = ["svc", "cluster", "local"]
FRESH_SECONDS = 0.5
"""So long an answer of the API server is used again."""


class Api:
    """What the API server says, asked no more often than it changes."""

    def __init__(self, address: str, token: str) -> None:
        self._address = address
        self._headers = {"Authorization": f"Bearer {token}"}
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._kept: dict[str, tuple[float, Any]] = {}

    def read(self, path: str) -> Any:
        """An object, or None if there is none."""
        at, found = self._kept.get(path, (0.0, None))
        if time.monotonic() - at > FRESH_SECONDS:
            asked = urllib.request.Request(self._address + path, headers=self._headers)
            try:
                with urllib.request.urlopen(asked, context=self._context, timeout=5) as answer:
                    found = json.load(answer)
            except urllib.error.HTTPError:
                found = None
            self._kept[path] = (time.monotonic(), found)
        return found

    def addresses(self, name: str) -> list[str] | None:
        """Where a name leads to; None if there is no such name."""
        words = name.lower().rstrip(".").split(".")
        if words[-3:] != DOMAIN or len(words) not in (5, 6):
            return None
        pod, service, namespace = ([None, *words])[-6:-3] if len(words) == 5 else words[:3]
        place = f"/api/v1/namespaces/{namespace}"
        found = self.read(f"{place}/services/{service}")
        if found is None:
            return None
        if pod is None and found["spec"].get("clusterIP") not in (None, "None"):
            return [found["spec"]["clusterIP"]]
        endpoints = []
        for subset in (self.read(f"{place}/endpoints/{service}") or {}).get("subsets") or []:
            endpoints += subset.get("addresses", [])
            if found["spec"].get("publishNotReadyAddresses"):
                endpoints += subset.get("notReadyAddresses", [])
        ips = [each["ip"] for each in endpoints if pod in (None, each.get("hostname"))]
        return ips or (None if pod else [])


def answer(query: bytes, api: Api) -> bytes:
    """The reply to a query of one name."""
    at, words = 12, []
    while query[at]:
        words.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    (kind,) = struct.unpack_from(">H", query, at + 1)
    found = api.addresses(".".join(words))
    records = found if found and kind == 1 else []
    flags = 0x8580 | (3 if found is None else 0)
    reply = query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + query[12 : at + 5]
    for address in records:
        reply += struct.pack(">HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(address)
    return reply


def main() -> None:
    """Answer until the process is ended."""
    address, token, own = sys.argv[1:]
    api = Api(address, token)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind((own, 53))
        while True:
            query, peer = port.recvfrom(2048)
            try:
                port.sendto(answer(query, api), peer)
            except (OSError, ValueError, IndexError, struct.error) as error:
                print(f"{peer}: {error!r}", flush=True)


if __name__ == "__main__":
    main()
