"""The conformance checks, one module a kind of plugin. `sglora_cli.testing` is their public face.

toys        small experts, tasks and images that the checks share
backbone    checks of backbones
dataset     checks of data sets
captioner   checks of captioners
generator   checks of generators
reporter    checks of reporters
kits        all of them by kind of plugin
"""
