#!/usr/bin/env bash
# The batch job that reads the lake. Its arguments come with the job; kinit logs in to Kerberos.
# shellcheck source=buildah/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

service ingestor ingestor "Reads HDFS and folders and sends documents to the indexer" \
    --packages 'krb5-user libgssapi-krb5-2' --command --help --bound 650
