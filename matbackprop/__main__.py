"""``python -m matbackprop`` is the command ``matbackprop``."""

import sys

from matbackprop.cli import main

if __name__ == "__main__":
    sys.exit(main())
