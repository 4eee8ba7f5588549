"""The composition root of ``sluice up``: every service in one process."""
