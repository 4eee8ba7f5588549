"""What can be set about ingesting: the sections ``ingest``, ``client`` and ``telemetry``.

Values only, validated once; nothing here reads a file or the environment.
"""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field, field_validator

from common.config import Settings
from common.connection import ConnectionSettings
from common.telemetry import TelemetrySettings

MIB = 2**20


class HdfsSettings(Settings):
    """How ``hdfs://`` is opened.

    ``native`` speaks the protocol itself, without a JVM; ``libhdfs`` needs Hadoop's libhdfs.so, a
    JVM and the Hadoop CLASSPATH. ``options`` are Hadoop configuration keys, over those found
    through HADOOP_CONF_DIR.
    """

    client: Literal["native", "libhdfs"] = "native"
    options: dict[str, str] = Field(default_factory=dict)


class StreamSettings(Settings):
    """The stream to the index service; the server's own limits hold besides.

    A batch is written and acknowledged as a whole, so that ``batch_bytes`` is what a broken
    connection may cost, and how often progress shows. A document larger than it goes alone.
    """

    batch_documents: int = Field(default=256, ge=1)
    batch_bytes: int = Field(default=MIB // 4, ge=1)
    max_unacknowledged_documents: int = Field(default=512, ge=1)
    max_unacknowledged_bytes: int = Field(default=64 * MIB, ge=1)
    linger_s: float = Field(default=0.05, ge=0)
    open_timeout_s: float = Field(default=30.0, gt=0)
    acknowledgement_timeout_s: float = Field(default=300.0, gt=0)
    max_attempts: int = Field(default=10, ge=1)
    first_delay_s: float = Field(default=0.2, gt=0)
    max_delay_s: float = Field(default=15.0, gt=0)


class ExtractionSettings(Settings):
    """Extraction of text.

    ``fallback_encoding`` reads text that is not UTF-8 and names no encoding itself; None replaces
    the stray bytes instead and counts them.
    """

    workers: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1, le=64)
    timeout_s: float = Field(default=120.0, gt=0)
    worker_memory_bytes: int = Field(default=4096 * MIB, ge=512 * MIB)
    max_characters: int = Field(default=32 * MIB, ge=1)
    fallback_encoding: str | None = None

    @field_validator("fallback_encoding")
    @classmethod
    def _is_text_encoding(cls, name: str | None) -> str | None:
        try:
            bytes(4).decode("utf-8" if name is None else name)  # empty ones ask no codec
        except (LookupError, UnicodeError):
            raise ValueError("not an encoding of text that Python knows, such as cp1252") from None
        return name


class IngestSettings(Settings):
    """One ingest job; sizes in bytes.

    ``state_uri`` is a folder that ``pyarrow.fs`` opens; None means the user's data folder. Without
    ``allow_empty`` a root of which the index holds documents must have a file to index.
    """

    state_uri: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    allow_empty: bool = False
    max_file_bytes: int = Field(default=64 * MIB, ge=1)
    max_bytes_in_flight: int = Field(default=128 * MIB, ge=1)
    max_files_listed_ahead: int = Field(default=10_000, ge=1)
    readers: int = Field(default=8, ge=1, le=256)
    max_attempts: int = Field(default=3, ge=1)
    checkpoint_s: float = Field(default=15.0, gt=0)
    hdfs: HdfsSettings = HdfsSettings()
    extraction: ExtractionSettings = ExtractionSettings()
    stream: StreamSettings = StreamSettings()


class IngestorConfig(Settings):
    """The sections that ``sluice ingest`` and ``sluice dead-letters`` read."""

    ingest: IngestSettings = IngestSettings()
    client: ConnectionSettings = ConnectionSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
