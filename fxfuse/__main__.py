"""``python -m fxfuse`` is the command ``fxfuse``."""

import sys

from fxfuse.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
