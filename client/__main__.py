"""``python -m client`` is the command line ``sluice``."""

import sys

from client.cli import main

sys.exit(main())
