"""The ``sluice`` command line and the Python client; knows only the contracts."""
