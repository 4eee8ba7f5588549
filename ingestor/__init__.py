"""Reads sources, extracts text and streams documents to an indexer."""
