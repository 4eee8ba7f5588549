"""What ``sluice doctor`` finds out about the ingestor and its cluster; it only looks."""
