"""What a plugin is, and how the host lives with it.

hookspecs    the questions a plugin is asked, on one screen
contracts    what a plugin provides: backbones, data sets, captioners, generators, reporters
sites        which sites the layout of an adapter may have
values       what travels between host and plugin: tasks, photos, rows, reports
states       the training tasks' states in the numbers that a generator's networks see
tokens       which tokens of a photo are left out in training
learning     training of a generator's network, with checkpoints
retrieval    learning by retrieval over the seen tasks
fit_cost     what fits that learn from saved states need, by trying a part of them
combined     sums of generators
host         loads plugins, keeps the registries, isolates what is broken
guard        names the plugin in its exceptions and wrong answers
validation   whether what a plugin gives fulfils its contract
testing/     the conformance checks, for a plugin's own tests
"""
