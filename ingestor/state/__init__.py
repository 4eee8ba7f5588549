"""What is remembered between jobs: manifests, dead letters, locks."""
