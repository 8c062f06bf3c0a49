"""What `sglora plugins new` writes: a plugin and its test of each kind, under the name `example`.

`scaffold.py` replaces that name, and nothing else; so this is code that runs, and is checked with the rest.
"""
