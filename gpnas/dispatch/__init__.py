"""Where Ray meets the search: candidates become trials, results become observations.

The only part of gpnas that knows Ray, and one of the two that know networks. Importing the package
itself loads nothing, since every Ray worker does it: `gpnas.dispatch.search` runs searches, and
`gpnas.dispatch.trial` is what a worker needs.
"""

import os

# Ray reads these when it is imported or started, so they are set before anything of it is.
os.environ.update(
    RAY_AUTH_MODE="token",  # a given address does not turn it on by itself
    RAY_USAGE_STATS_ENABLED="0",
    RAY_CHDIR_TO_TRIAL_DIR="0",
    # gpnas has its own record and its own view of a search; Tune's take memory and disk
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_DISABLE_STRICT_METRIC_CHECKING="1",  # most reports come between two validations
    TUNE_GLOBAL_CHECKPOINT_S="1000000",
    RAY_AIR_NEW_OUTPUT="0",
)
