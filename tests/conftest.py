"""What every test needs before anything else is imported."""

import gpnas.dispatch  # noqa: F401 - Ray reads its environment when it is imported, so this is set first
