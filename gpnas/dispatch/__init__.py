"""Where Ray meets the search: candidates become trials, results become observations.

The only part of gpnas that knows Ray, and one of the two that know networks. Importing the package
itself loads nothing, since every Ray worker does it: `gpnas.dispatch.search` runs searches, and
`gpnas.dispatch.trial` is what a worker needs.
"""
