"""``python -m covey.node`` is the ``covey`` command."""

import sys

from covey.node.cli import main

if __name__ == "__main__":
    sys.exit(main())
