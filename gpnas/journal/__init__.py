"""The journal: one SQLite file per search, and the only state that a search has.

A run folder holds

    journal.sqlite          everything: candidates, attempts, progress, observations, results
    journal.backup.sqlite   a copy, as of the last candidate, observation or result
    lock                    held by the one driver that may write, or by several processes that share the run
    opening, backing, asking    held for a moment by the one of these that opens, backs up, or thinks

Documents in it are JSON, checked on the way in and on the way out; nothing is ever unpickled.
"""

from gpnas.journal.answers import Answer as Answer
from gpnas.journal.answers import Answers as Answers
from gpnas.journal.entries import Attempt as Attempt
from gpnas.journal.entries import Moment as Moment
from gpnas.journal.exporting import excerpt as excerpt
from gpnas.journal.exporting import export as export
from gpnas.journal.following import ENDED as ENDED
from gpnas.journal.following import Cursor as Cursor
from gpnas.journal.following import Entry as Entry
from gpnas.journal.header import CHECKED as CHECKED
from gpnas.journal.header import Header as Header
from gpnas.journal.header import Search as Search
from gpnas.journal.journal import Journal as Journal
from gpnas.journal.leases import Clock as Clock
from gpnas.journal.leases import Holder as Holder
from gpnas.journal.leases import Lease as Lease
from gpnas.journal.leases import process_identity as process_identity
from gpnas.journal.looking import Look as Look
from gpnas.journal.looking import Training as Training
from gpnas.journal.looking import look as look
from gpnas.journal.memory import Memory as Memory
from gpnas.journal.reading import PROSPECT as PROSPECT
from gpnas.journal.status import is_driven as is_driven
from gpnas.journal.status import status as status
from gpnas.journal.status import status_of as status_of
