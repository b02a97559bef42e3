"""`python -m gpnas.cli`."""

import sys

from gpnas.cli import main

sys.exit(main())
