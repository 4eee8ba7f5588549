"""What can be set about ingesting.

Values only, validated once; nothing here reads a file or the environment.
"""

from __future__ import annotations

import dataclasses
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from common.config import Settings
from common.connection import ConnectionSettings
from common.coordination import CoordinatorSettings
from common.telemetry import TelemetrySettings
from ingestor.durations import parse_moment
from ingestor.extraction.format_rules import FormatRule
from ingestor.extraction.worker_protocol import Limits

MIB = 2**20


class KerberosSettings(Settings):
    """Who this job is to a Kerberized cluster; ``kinit`` logs in with the keytab and again in time.

    ``krb5_conf`` is taken from KRB5_CONFIG or the system's place if it is None.
    """

    principal: str = Field(min_length=1)
    keytab: Path
    krb5_conf: Path | None = None
    kinit: Path = Path("kinit")


class WebHdfsSettings(Settings):
    """How ``webhdfs://`` and, over TLS, ``swebhdfs://`` are opened.

    ``user`` is who one is on a cluster without Kerberos; ``token_file`` holds a delegation token.
    ``ca_file`` certifies the cluster's servers; None means the usual authorities.
    """

    user: str | None = None
    token_file: Path | None = None
    kerberos: bool = False
    ca_file: Path | None = None


class HdfsSettings(Settings):
    """How ``hdfs://`` is opened.

    ``native`` speaks the protocol itself, without a JVM; ``libhdfs`` needs Hadoop's libhdfs.so, a
    JVM and the Hadoop CLASSPATH; ``auto`` is native where it is installed. ``conf_dir`` holds
    core-site.xml and hdfs-site.xml; None means HADOOP_CONF_DIR. ``options`` are Hadoop
    configuration keys over those found there. A call that takes over ``timeout_s`` has failed; a
    storage that is out of reach for ``outage_s`` ends the job. Both hold for every remote storage.
    """

    client: Literal["auto", "native", "libhdfs"] = "auto"
    conf_dir: Path | None = None
    options: dict[str, str] = Field(default_factory=dict)
    timeout_s: float = Field(default=60.0, gt=0, le=3600)
    outage_s: float = Field(default=180.0, ge=0, le=86_400)
    kerberos: KerberosSettings | None = None
    web: WebHdfsSettings = WebHdfsSettings()


class StreamSettings(Settings):
    """The stream to the index service; the server's own limits hold besides.

    What may be unacknowledged bounds memory, over all indexers. Within it each indexer has a window
    that follows its rate: what is under way to it should last for ``target_s``. A batch is a
    quarter of the window, ``batch_bytes`` at most, since it is written and acknowledged as a whole.
    A document larger than a batch goes alone.
    """

    batch_documents: int = Field(default=256, ge=1)
    batch_bytes: int = Field(default=MIB // 4, ge=1)
    target_s: float = Field(default=2.0, gt=0, le=60)
    max_unacknowledged_documents: int = Field(default=4096, ge=1)
    max_unacknowledged_bytes: int = Field(default=64 * MIB, ge=1)
    linger_s: float = Field(default=0.05, ge=0)
    open_timeout_s: float = Field(default=30.0, gt=0)
    acknowledgement_timeout_s: float = Field(default=300.0, gt=0)
    max_attempts: int = Field(default=10, ge=1)
    first_delay_s: float = Field(default=0.2, gt=0)
    max_delay_s: float = Field(default=15.0, gt=0)


class ExtractionSettings(Settings):
    """Extraction of text.

    ``workers`` processes parse; one of them is never held by a file of many documents. A file is
    given up when it brings nothing for ``timeout_s``. What is compressed may expand to
    ``max_expanded_bytes`` in all, and to ``max_member_bytes`` where it is held in memory: a member
    of an archive, a compressed file, an office document. A document has at most
    ``max_characters``. ``fallback_encoding`` reads text that is not UTF-8 and names no encoding
    itself; None replaces the stray bytes instead and counts them.
    """

    workers: int = Field(default_factory=lambda: min(4, max(2, os.cpu_count() or 1)), ge=2, le=64)
    timeout_s: float = Field(default=120.0, gt=0)
    worker_memory_bytes: int = Field(default=4096 * MIB, ge=512 * MIB)
    max_characters: int = Field(default=32 * MIB, ge=1)
    max_expanded_bytes: int = Field(default=16 * 1024 * MIB, ge=1)
    max_member_bytes: int = Field(default=128 * MIB, ge=1)
    fallback_encoding: str | None = None

    def limits(self) -> Limits:
        """The bounds on one file."""
        names = (field.name for field in dataclasses.fields(Limits))
        return Limits(**{name: getattr(self, name) for name in names})

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
    ``allow_empty`` a root of which the index holds documents must have a file to index. Files older
    than ``modified_since``, a time or a span before now, are left as they are. ``max_file_bytes``
    is the greatest file that is read whole, ``max_text_bytes`` the greatest that is text as it is:
    an indexer takes documents of 12 MiB and less. A file of many documents streams, and may be of
    any size. ``max_bytes_in_flight`` bounds what is read and not yet acknowledged.
    ``stop_timeout_s`` is for finishing what is in hand when a job is stopped. ``build_ttl_s`` is
    how long the lock on building a version outlives a job that dies or freezes.
    """

    state_uri: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    allow_empty: bool = False
    modified_since: timedelta | datetime | None = None
    max_file_bytes: int = Field(default=64 * MIB, ge=1)
    max_text_bytes: int = Field(default=16 * MIB, ge=1)
    max_bytes_in_flight: int = Field(default=96 * MIB, ge=1)
    max_files_listed_ahead: int = Field(default=10_000, ge=1)
    readers: int = Field(default=8, ge=1, le=256)
    max_attempts: int = Field(default=3, ge=1)
    checkpoint_s: float = Field(default=15.0, gt=0)
    stop_timeout_s: float = Field(default=25.0, ge=0)
    build_ttl_s: int = Field(default=15, ge=2, le=600)
    hdfs: HdfsSettings = HdfsSettings()
    extraction: ExtractionSettings = ExtractionSettings()
    formats: tuple[FormatRule, ...] = ()
    stream: StreamSettings = StreamSettings()

    @field_validator("modified_since", mode="before")
    @classmethod
    def _is_moment(cls, given: object) -> timedelta | datetime | None:
        return None if given is None else parse_moment(given)


class IngestorConfig(Settings):
    """The sections that ``sluice ingest`` and ``sluice dead-letters`` read.

    A coordinator of kind etcd finds the indexers and keeps two jobs from one root. The embedded one
    lives in the process of ``sluice up``, where there is one indexer, at ``client.target``.
    """

    ingest: IngestSettings = IngestSettings()
    client: ConnectionSettings = ConnectionSettings()
    coordinator: CoordinatorSettings = CoordinatorSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
