"""Asks a server for vectors: the `/v1/embeddings` call that TEI, vLLM, OpenAI and others serve.

Protocol: https://platform.openai.com/docs/api-reference/embeddings/create, with `encoding_format`
float. It repeats only what a repeat can cure, within bounds, and never puts a text, an answer's
body or the API key into an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import ssl
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from common.embedding.embedder import EmbedderSpec
from common.embedding.tokenizer import open_tokenizer, token_ids
from common.embedding.workers import work_through
from common.errors import ConfigurationError, InvalidArgument, Overloaded, SluiceError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from common.embedding.settings import EmbeddingSettings

MAX_PAUSE_S = 30.0
"""The longest pause before a repeat; a server that asks for more gets no repeat at all."""

_PIECE = re.compile(r"\w{1,4}|[^\w\s]")
_UNAUTHORISED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_UNPROCESSABLE = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
_MATRIX = 2
_QUERY_CONNECTIONS = 32


class OpenAIEmbedder:
    """Embeds on a server, in concurrent requests of bounded size.

    Without `tokenizer_file` tokens are estimated, one for every four letters of a word and for
    every sign: more than most tokenizers find, so that chunks sized by it are not cut off.

    Args:
        settings: of kind ``openai``.

    Raises:
        ConfigurationError: a setting is missing or cannot work.
    """

    def __init__(self, settings: EmbeddingSettings) -> None:
        if settings.dimension == 0:
            raise ConfigurationError("embedding.dimension: set the length of the server's vectors")
        self._settings = settings
        self._endpoint = _endpoint(settings.url)
        name = f"{settings.model}\n{settings.dimension}"
        self._spec = EmbedderSpec(
            model=settings.model,
            digest=hashlib.sha256(name.encode()).hexdigest(),
            dimension=settings.dimension,
            pooling="unknown",
            max_tokens=settings.max_tokens,
            variant="remote",
        )
        self._tokenizer = _tokenizer(settings.tokenizer_file)
        self._in_flight = asyncio.Semaphore(settings.max_concurrent_batches)
        key = _api_key(settings.api_key_file)
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=settings.timeout_s,
            verify=_certificates(settings.ca_file),
            trust_env=False,  # what may be reached is configuration's to say
            # more than documents can take: a query finds a free one
            limits=httpx.Limits(
                max_connections=settings.max_concurrent_batches + _QUERY_CONNECTIONS
            ),
        )

    @property
    def spec(self) -> EmbedderSpec:
        """What computes the vectors."""
        return self._spec

    def token_count(self, text: str) -> int:
        """Count the tokens with the configured tokenizer, else estimate them."""
        return len(self.tokenize(text))

    def tokenize(self, text: str) -> list[int]:
        """Return the configured tokenizer's ids, else a 32-bit hash of each estimated token."""
        if self._tokenizer is None:
            return [zlib.crc32(piece.encode()) for piece in _PIECE.findall(text)]
        return token_ids(self._tokenizer, text)

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: shape (n, dimension). Texts of like length share a request.

        Raises:
            Overloaded, Unavailable: the server did not answer within all attempts.
            InvalidArgument: the server refuses a text.
            ConfigurationError: the address, the key, the model or the dimension is wrong.
        """
        vectors = np.empty((len(texts), self._spec.dimension), np.float32)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        size = self._settings.batch_texts
        batches = [order[at : at + size] for at in range(0, len(order), size)]

        async def embed(batch: list[int]) -> None:
            async with self._in_flight:
                vectors[batch] = await self._request([texts[i] for i in batch])

        await work_through(batches, embed, workers=self._settings.max_concurrent_batches)
        return vectors

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        """Embed one query: shape (dimension,). Raises what `embed_documents` raises."""
        vector: NDArray[np.float32] = (await self._request([text]))[0]
        return vector

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _request(self, texts: list[str]) -> NDArray[np.float32]:
        """Ask for one batch, and again while that can help."""
        bound_s = self._settings.retry_backoff_s
        for attempts_left in reversed(range(self._settings.retries + 1)):
            try:
                return await self._attempt(texts)
            except (Overloaded, Unavailable) as failure:
                if failure.retry_after_ms is not None:
                    pause_s = failure.retry_after_ms / 1000
                else:
                    # full jitter: Brooker, "Exponential Backoff And Jitter", 2015
                    pause_s = random.uniform(0, bound_s)  # noqa: S311 - nothing secret hangs on it
                    failure.retry_after_ms = int(1000 * bound_s)
                if not attempts_left or pause_s > MAX_PAUSE_S:
                    raise
            await asyncio.sleep(pause_s)
            bound_s = min(2 * bound_s, MAX_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, texts: list[str]) -> NDArray[np.float32]:
        request = {"model": self._settings.model, "input": texts, "encoding_format": "float"}
        try:
            # httpx bounds each step of a request, this the whole of it
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await self._http.post(self._endpoint, json=request)
        except (TimeoutError, httpx.TransportError) as error:
            raise Unavailable(
                f"{self._endpoint} did not answer ({type(error).__name__}); "
                "check embedding.url, embedding.timeout_s and the server"
            ) from error
        if answer.status_code == HTTPStatus.OK:
            return self._vectors(answer, len(texts))
        raise self._refusal(answer)

    def _refusal(self, answer: httpx.Response) -> SluiceError:
        """Turn a status into the error that says what to do; the body may hold the texts."""
        status = answer.status_code
        said = f"{self._endpoint} answered {status}"
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return Overloaded(
                f"{said}: its limit is reached; lower embedding.max_concurrent_batches",
                retry_after_ms=_retry_after_ms(answer),
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Unavailable(
                f"{said}; look into the server's log", retry_after_ms=_retry_after_ms(answer)
            )
        if status in _UNAUTHORISED:
            return ConfigurationError(f"{said}: check embedding.api_key_file")
        if status in _UNPROCESSABLE:
            return InvalidArgument(
                f"{said}: it refuses the texts; check embedding.max_tokens, embedding.batch_texts "
                "and embedding.model against the server's limits"
            )
        return ConfigurationError(
            f"{said}: check embedding.url (http://host:port/v1) and embedding.model"
        )

    def _vectors(self, answer: httpx.Response, count: int) -> NDArray[np.float32]:
        """Read an answer: shape (count, dimension), in the order of the request, normalised."""
        try:
            rows = sorted(answer.json()["data"], key=lambda row: row["index"])
            places = [row["index"] for row in rows]
            vectors = np.array([row["embedding"] for row in rows], np.float32)
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(
                f"{self._endpoint} does not answer as an OpenAI-compatible server; "
                "check embedding.url"
            ) from error
        if places != list(range(count)) or vectors.ndim != _MATRIX:
            raise ConfigurationError(
                f"{self._endpoint} did not give one vector for each text; check embedding.url"
            )
        if vectors.shape[1] != self._spec.dimension:
            raise ConfigurationError(
                f"embedding.dimension is {self._spec.dimension}, "
                f"but {self._endpoint} gives vectors of {vectors.shape[1]}"
            )
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and norms.all()):
            raise Unavailable(f"{self._endpoint} gave a vector that is zero or not finite")
        normalised: NDArray[np.float32] = vectors / norms
        return normalised


def _endpoint(url: str) -> str:
    """Check the base address and append the call's path."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError("embedding.url: set the server's address, http://host:port/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        # the address appears in errors, so no secret may be part of it
        raise ConfigurationError(
            "embedding.url: only scheme, host, port and path; a key goes into the file named by "
            "embedding.api_key_file"
        )
    return f"{url.rstrip('/')}/embeddings"


def _api_key(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        key = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        key = ""
    if not key or not key.isprintable():
        # raised outside the handler: a decoding error quotes the bytes it fails on
        raise ConfigurationError(
            f"embedding.api_key_file: {path} cannot be read as one line of ASCII"
        )
    return key


def _certificates(path: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"embedding.ca_file: {path} cannot be read as certificates in PEM"
        ) from error


def _tokenizer(path: Path | None) -> Any:  # noqa: ANN401 - tokenizers ships no types
    return None if path is None else open_tokenizer(path)


def _retry_after_ms(answer: httpx.Response) -> int | None:
    """Read Retry-After (RFC 9110, 10.2.3), in seconds or as a date; None where there is none."""
    header = answer.headers.get("retry-after", "").strip()
    if header.isdecimal():
        return int(header) * 1000
    with suppress(ValueError, TypeError):  # TypeError: a date that gives no zone
        until = parsedate_to_datetime(header) - datetime.now(UTC)
        return max(0, int(until.total_seconds() * 1000))
    return None
