"""The nightly batch job as an Airflow DAG: ingest, and list the dead letters where there are some.

For workers on which `sluice` is installed and may reach HDFS, etcd and the indexers. Exit code 3 of
`sluice ingest` (done with dead letters) is no failure and must not be repeated: the task is skipped
then, and only then the next one runs. For Airflow 3 with the provider "standard".
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

CONFIGURATION = "/etc/sluice/sluice.yaml"
URIS = "hdfs://lake/docs"
COLLECTION = "docs"
DEAD_LETTERS = 3

with DAG(
    dag_id="sluice_ingest",
    description="Brings the index into line with HDFS",
    schedule="0 2 * * *",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # a second job over one root would end at once
):
    ingest = BashOperator(
        task_id="ingest",
        # exec: SIGTERM reaches the job itself, which then finishes the files in hand.
        bash_command=(
            f"exec sluice ingest {URIS} --collection {COLLECTION} --config {CONFIGURATION} --quiet"
        ),
        skip_on_exit_code=DEAD_LETTERS,
        append_env=True,
        retries=3,
        retry_delay=timedelta(minutes=5),
        retry_exponential_backoff=True,
        execution_timeout=timedelta(hours=22),
    )
    dead_letters = BashOperator(
        task_id="dead_letters",
        bash_command=(
            f"exec sluice dead-letters list --collection {COLLECTION} --config {CONFIGURATION}"
        ),
        append_env=True,
        trigger_rule="all_skipped",
        execution_timeout=timedelta(minutes=10),
    )
    _ = ingest >> dead_letters
