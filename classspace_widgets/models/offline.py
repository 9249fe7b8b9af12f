"""Saying at once that there is no network, instead of after a minute of trying again."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def cache_alone_where_cut_off() -> Iterator[None]:
    """Inside, published weights come only from the cache if the name of the weights' host cannot be resolved."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or not _cut_off(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def _cut_off(address: str) -> bool:
    """Whether a host's name cannot be resolved here, and no proxy could do it for us."""
    parts = urlsplit(address)
    if getproxies().get(parts.scheme):
        return False
    try:
        socket.getaddrinfo(parts.hostname, parts.port or 443)
    except socket.gaierror:
        return True
    return False
