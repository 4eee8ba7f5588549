"""Reconciles, chunks, embeds and stores documents, and keeps the index versions."""
