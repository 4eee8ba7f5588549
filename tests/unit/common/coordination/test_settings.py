"""The section ``coordinator``."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from common.coordination import CoordinatorSettings, open_coordinator
from common.errors import ConfigurationError


@pytest.mark.parametrize(
    "values",
    [
        {"user": "sluice"},
        {"password_file": "p"},
        {"cert_file": "c"},
        {"key_file": "k"},
        {"endpoints": []},
        {"prefix": "sluice"},
        {"prefix": "/sluice/"},
        {"timeout_ms": 0},
        {"kind": "zookeeper"},
        {"endpoint": "127.0.0.1:2379"},
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CoordinatorSettings.model_validate(values)


def test_the_embedded_coordinator_needs_a_path() -> None:
    with pytest.raises(ConfigurationError, match=r"coordinator\.path"):
        open_coordinator(CoordinatorSettings())


async def test_a_credential_file_that_is_not_there_is_named() -> None:
    settings = CoordinatorSettings(kind="etcd", ca_file=Path("absent.pem"))
    with pytest.raises(ConfigurationError, match=r"coordinator\.ca_file: absent\.pem"):
        open_coordinator(settings)
