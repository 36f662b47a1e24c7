"""`python -m fastecho`: the same as the command `fastecho`."""

import sys

from fastecho.cli import main

if __name__ == "__main__":
    sys.exit(main())
