"""Without a network, weights are looked for in the cache alone, and the answer comes at once."""

from __future__ import annotations

import socket

import pytest
import timm
from huggingface_hub import constants

from classspace_widgets import ClassSpace


@pytest.fixture
def seen(monkeypatch):
    """Whether the hub was told to stay offline, for every model that timm was asked for."""
    found: list[bool] = []

    def create(name, **options):
        found.append(constants.HF_HUB_OFFLINE)
        raise OSError("no such weights")

    monkeypatch.setattr(timm, "create_model", create)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return found


def no_name(*_args, **_options):
    raise socket.gaierror(-2, "Name or service not known")


def ask():
    with pytest.raises(RuntimeError, match=r"no such weights.*checkpoint=.*pretrained=False.*bundled"):
        ClassSpace.from_timm("vit_tiny_patch16_224")


def test_cut_off_means_the_cache_alone_and_only_for_this_call(seen, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    ask()
    assert seen == [True]
    assert constants.HF_HUB_OFFLINE is False


def test_with_a_network_or_a_proxy_nothing_changes(seen, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    ask()
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    ask()
    assert seen == [False, False]
