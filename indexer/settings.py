"""Settings of the indexer: its bounds and where it listens. Checked when they are read."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from common.config import Settings
from common.rpc import ChannelSettings, ServerSettings

# What a batch message holds beside its documents, generously.
ENVELOPE_BYTES = 2**12


class RetentionSettings(Settings):
    """Which index versions are kept, and how often those beyond are collected.

    Attributes:
        keep_versions: retired versions kept to roll back to, the newest; 0 keeps none. As many of
            those that were built and not activated are kept, but always one.
        keep_days: how long every retired version is kept, in days, also beyond those.
        keep_failed_s: how long failed and abandoned versions are kept for their reason, in seconds.
        interval_s: between two collections, in seconds.
    """

    keep_versions: int = Field(default=2, ge=0, le=1000)
    keep_days: float = Field(default=0.0, ge=0, le=36_500)
    keep_failed_s: float = Field(default=3_600.0, ge=0, le=31_536_000)
    interval_s: float = Field(default=60.0, gt=0, le=86_400)


class WordCountSettings(Settings):
    """How the words of index versions are counted, which ranking weighs words by.

    Attributes:
        folder: remembers between two runs what was counted, about 0.7 KB a chunk, so that only
            what changed is read; one of its own for each indexer. None for temporary files, after
            which a new process reads all texts again.
        interval_s: from a write to the counting at least, in seconds; and between two countings,
            of which the indexer takes a tenth of the time at most.
        audit_s: between two comparisons of what is published with what the stores hold, in seconds.
            They find what an indexer wrote that died before it counted.
    """

    folder: Path | None = None
    interval_s: float = Field(default=2.0, gt=0, le=86_400)
    audit_s: float = Field(default=600.0, gt=0, le=31_536_000)


class IndexerSettings(Settings):
    """Bounds of the indexer; together they bound its memory.

    Attributes:
        server: where the service listens.
        advertise: HOST:PORT under which others reach it; empty for the address it listens on or,
            if that is every address, the one from which this machine reaches etcd.
        instance_ttl_s: how long its registration and its pins outlive it, in seconds.
        query_target: the query servers that golden queries are asked, as a client names them;
            empty for those that are announced.
        query_channel: how they are reached.
        retention: which index versions are kept.
        word_counts: how their words are counted.
        opening_timeout_s: how long a stream may take to say what it is for, in seconds.
        max_streams: streams open at once; the next one is refused and told to come back.
        max_batches_in_flight: batches in work at once, over all streams.
        batches_per_stream: batches one stream may have in work: while one is embedded the next is
            chunked and the one before is written.
        max_batch_documents: documents a batch may carry.
        max_batch_bytes: bytes a serialized batch may have.
        max_document_bytes: bytes of UTF-8 one document's content may have.
        slice_chunks: chunks embedded and written at a time.
        chunking_threads: threads that check and chunk documents; they hold the interpreter.
    """

    server: ServerSettings = ServerSettings()
    advertise: str = ""
    instance_ttl_s: int = Field(default=10, ge=2, le=600)
    query_target: str = ""
    query_channel: ChannelSettings = ChannelSettings()
    retention: RetentionSettings = RetentionSettings()
    word_counts: WordCountSettings = WordCountSettings()
    opening_timeout_s: float = Field(default=10.0, gt=0, le=600)
    max_streams: int = Field(default=16, ge=1, le=1024)
    max_batches_in_flight: int = Field(default=8, ge=1, le=1024)
    batches_per_stream: int = Field(default=3, ge=1, le=64)
    max_batch_documents: int = Field(default=256, ge=1, le=1000)
    max_batch_bytes: int = Field(default=15 * 2**20, ge=2**10)
    max_document_bytes: int = Field(default=12 * 2**20, ge=2**8)
    slice_chunks: int = Field(default=512, ge=1, le=2048)
    chunking_threads: int = Field(default=1, ge=1, le=64)

    @model_validator(mode="after")
    def _limits_fit_into_each_other(self) -> IndexerSettings:
        if self.max_document_bytes > self.max_batch_bytes:
            raise ValueError("indexer.max_document_bytes must not exceed indexer.max_batch_bytes")
        if self.max_batch_bytes + ENVELOPE_BYTES > self.server.max_message_bytes:
            raise ValueError(
                "indexer.server.max_message_bytes must exceed indexer.max_batch_bytes by "
                f"{ENVELOPE_BYTES} bytes"
            )
        return self
