"""Where Ray meets the search: candidates become trials, results become observations.

The only part of gpnas that knows Ray, and one of the two that know networks.
"""

from gpnas.dispatch.cluster import Cluster as Cluster  # first: it sets what Ray reads when imported
from gpnas.dispatch.conductor import Event as Event
from gpnas.dispatch.delivery import Delivery as Delivery
from gpnas.dispatch.delivery import Ranked as Ranked
from gpnas.dispatch.description import describe as describe
from gpnas.dispatch.search import Interrupted as Interrupted
from gpnas.dispatch.search import Listener as Listener
from gpnas.dispatch.search import Request as Request
from gpnas.dispatch.search import priced as priced
from gpnas.dispatch.search import run_search as run_search
