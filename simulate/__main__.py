"""``python -m covey.simulate``: what ``covey simulate`` runs."""

import sys

from covey.simulate.cli import main

if __name__ == "__main__":
    sys.exit(main())
