"""TLS for servers and channels, from PEM files. Nothing read here is ever logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from common.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def server_credentials(
    certificate: Path | None, key: Path | None, client_ca: Path | None
) -> grpc.ServerCredentials | None:
    """Credentials of a server, None for plain text.

    Args:
        certificate: chain of the server, its own certificate first.
        key: its private key.
        client_ca: authorities of clients; with it a client must show a certificate.

    Raises:
        ConfigurationError: only half of the pair is given, or a file cannot be read.
    """
    pair = _pair(certificate, key)
    ca = _read(client_ca)
    if pair is None:
        if ca is not None:
            raise ConfigurationError("tls_client_ca: set tls_certificate and tls_key as well")
        return None
    return grpc.ssl_server_credentials(
        [pair], root_certificates=ca, require_client_auth=ca is not None
    )


def channel_credentials(
    ca: Path | None, certificate: Path | None, key: Path | None
) -> grpc.ChannelCredentials:
    """Credentials of a client.

    Args:
        ca: authorities that sign servers; None for those that come with gRPC.
        certificate: the client's own, for servers that ask for one.
        key: its private key.

    Raises:
        ConfigurationError: only half of the pair is given, or a file cannot be read.
    """
    pair = _pair(certificate, key)
    key_bytes, chain = pair if pair is not None else (None, None)
    return grpc.ssl_channel_credentials(_read(ca), key_bytes, chain)


def _pair(certificate: Path | None, key: Path | None) -> tuple[bytes, bytes] | None:
    chain, key_bytes = _read(certificate), _read(key)
    if chain is None and key_bytes is None:
        return None
    if chain is None or key_bytes is None:
        raise ConfigurationError("tls_certificate and tls_key: set both or neither")
    return key_bytes, chain


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
