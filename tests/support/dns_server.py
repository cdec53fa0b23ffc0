"""A DNS server of a test's own, on loopback, and this process's resolver set to ask it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.message
import dns.rcode
import dns.resolver
import dns.rrset

Records = dict[str, list[str]]
"""By `NAME TYPE`, in lower case and without a last dot, what there is: `{"two.example MX": ["10 mx.two.example."]}`."""


@contextmanager
def answering(records: Records) -> Iterator[Records]:
    """A server that knows these records, which may be changed; a name without any does not exist.

    The answer to a name whose records are `["SERVFAIL"]` is a failure.
    """
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=_serve, args=(endpoint, records))
    thread.start()
    before, ours = dns.resolver.default_resolver, dns.resolver.Resolver(configure=False)
    ours.nameservers, ours.port = ["127.0.0.1"], endpoint.getsockname()[1]
    ours.lifetime = 5.0
    dns.resolver.default_resolver = ours
    try:
        yield records
    finally:
        dns.resolver.default_resolver = before
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", endpoint.getsockname())
        thread.join(timeout=60)
        endpoint.close()


def _serve(endpoint: socket.socket, records: Records) -> None:
    while True:
        data, client = endpoint.recvfrom(4096)
        if not data:
            return
        query = dns.message.from_wire(data)
        [question] = query.question
        name = question.name.to_text().rstrip(".").lower()
        kind = question.rdtype.name
        found = records.get(f"{name} {kind}", [])
        answer = dns.message.make_response(query)
        if found == ["SERVFAIL"]:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif found:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *found))
        elif not any(known.startswith(f"{name} ") for known in records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        endpoint.sendto(answer.to_wire(), client)
