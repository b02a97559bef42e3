"""A client of `gpnas serve`, for programs: `Client`, and `AsyncClient` for asyncio.

    with Client("http://127.0.0.1:8750", token) as client:
        lent = client.ask("digits", worker="desk")

Every write has an Idempotency-Key of its own and is sent again, with exponential pauses, where the link is
lost or the service is not there for a while; it is done once all the same.
"""

from gpnas.client.asynchronous import AsyncClient as AsyncClient
from gpnas.client.calls import Failure as Failure
from gpnas.client.calls import FinishedError as FinishedError
from gpnas.client.calls import LeaseLostError as LeaseLostError
from gpnas.client.calls import Lent as Lent
from gpnas.client.calls import Point as Point
from gpnas.client.calls import RefusedError as RefusedError
from gpnas.client.calls import Told as Told
from gpnas.client.calls import Verdict as Verdict
from gpnas.client.synchronous import Client as Client
