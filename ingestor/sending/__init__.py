"""Documents on their way to the indexers, and what the indexers are asked."""
