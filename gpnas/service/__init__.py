"""`gpnas serve`: the searches of a folder, for people and machines, over HTTP.

A room of its own: nothing else in gpnas knows FastAPI, and nothing here knows Ray. What a search is stands in
its journal alone; beside the runs the service keeps who may do what, and what was done.
"""
