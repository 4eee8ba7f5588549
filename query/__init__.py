"""Answers queries: route, embed, retrieve, rerank, assemble."""
