"""Ports for the servers of tests."""

from uuid import uuid4

from stack.ports import choose_port


def free_port() -> int:
    """Return a port that nobody holds, and that no outgoing connection takes while a server is away."""
    return choose_port(uuid4().hex)
