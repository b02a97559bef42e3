"""A process that thinks for the service: fits, explanations, figures and pages, one after another.

`python -m gpnas.service.helper` reads tasks from its standard input and writes what came of them to its
standard output, as JSON, each behind its length in eight bytes; it ends where its input does, so never
outlives the service. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO, Any

from gpnas.errors import GpnasError

MOST_BYTES = 2**28
"""The most bytes of a task or of what comes of it."""


def received(source: IO[bytes]) -> Any:
    """The next document; an EOFError where there is none."""
    head = source.read(8)
    size = int.from_bytes(head)
    if len(head) < 8 or size > MOST_BYTES:
        raise EOFError
    body = source.read(size)
    if len(body) < size:
        raise EOFError
    return json.loads(body)


def packed(document: Any) -> bytes:
    """A document as it is sent."""
    body = json.dumps(document, allow_nan=False).encode()
    return len(body).to_bytes(8) + body


def main() -> None:
    """Does tasks until there are no more."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from gpnas.service.tasks import TASKS

    while True:
        try:
            name, arguments = received(sys.stdin.buffer)
        except (EOFError, KeyboardInterrupt):
            return
        answer: dict[str, Any]
        try:
            answer = {"result": TASKS[name](*arguments)}
            message = packed(answer)
        except GpnasError as error:
            message = packed({"error": str(error)})
        except KeyboardInterrupt:
            return
        except Exception as error:
            import traceback

            traceback.print_exc()
            message = packed({"failure": f"{type(error).__name__}: {error}"[:500]})
        try:
            out.write(message)
            out.flush()
        except BrokenPipeError:  # the service was killed
            os._exit(0)


if __name__ == "__main__":
    main()
