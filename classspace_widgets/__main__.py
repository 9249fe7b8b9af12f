"""``python -m classspace_widgets``: the command line."""

import sys

from classspace_widgets.cli import main

if __name__ == "__main__":
    sys.exit(main())
