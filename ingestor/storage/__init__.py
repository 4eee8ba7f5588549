"""Where files come from and the state is kept: walks, reads and outages, on any file system."""
