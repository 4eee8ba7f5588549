"""The name under which somebody who asks is told to others."""

from __future__ import annotations

import os
import socket

import pytest

from common.requester import MAX_BYTES, requester


def test_it_names_user_host_and_process(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ann")
    assert requester() == f"ann@{socket.gethostname()}, process {os.getpid()}"


@pytest.mark.parametrize("user", ["\u00e4" * 500, "x" * 500, "a\udcff"])
def test_whatever_the_environment_holds_it_is_text_within_its_bound(monkeypatch, user):
    monkeypatch.setenv("LOGNAME", user)
    assert 0 < len(requester().encode()) <= MAX_BYTES
