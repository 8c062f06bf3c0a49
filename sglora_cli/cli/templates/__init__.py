"""Templates for `sglora plugins new`: a plugin and its tests for each kind, named `example`.

`scaffold.py` only replaces that name, so the templates are code that runs and is checked like the rest.
"""
