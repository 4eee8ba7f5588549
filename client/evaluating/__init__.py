"""Judging rankings: what ``sluice eval`` reads, asks, works out and shows."""
