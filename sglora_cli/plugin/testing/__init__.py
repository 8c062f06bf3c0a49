"""Conformance checks, one module per kind of plugin. `sglora_cli.testing` exports them.

toys        small experts, tasks and images shared by the checks
backbone    checks of backbones
dataset     checks of data sets
captioner   checks of captioners
generator   checks of generators
reporter    checks of reporters
tokens      checks of backbones that count tokens
kits        all checks by kind of plugin
"""
