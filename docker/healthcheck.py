"""Exits with 0 while this container's Ray node is well: its raylet answers to its agent.

The agent answers this one question without a token.
"""

import os
import sys
import urllib.request

URL = f"http://{os.environ.get('RAY_AGENT', '127.0.0.1:52365')}/api/local_raylet_healthz"

try:
    with urllib.request.urlopen(URL, timeout=4) as answer:
        sys.exit(0 if answer.read() == b"success" else 1)
except OSError as error:
    sys.exit(f"{URL}: the node must answer, but {error}")
