"""``python -m streaming.archive``: the archive process."""

import sys

from streaming.archive.process import main

if __name__ == "__main__":
    sys.exit(main())
