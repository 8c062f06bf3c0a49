"""The plugin system: contracts, registries and validation.

hookspecs    the hooks a plugin can implement
contracts    what a plugin provides: backbones, data sets, captioners, generators, reporters, executors
sites        the sites that an adapter layout may have
values       values passed between host and plugins: tasks, photos, rows, reports, steps
states       training-task states in the scaled coordinates that generator networks use
tokens       dropping image tokens during training
learning     training loop of a generator's network, with checkpoints
retrieval    training a generator by retrieval on the seen tasks
fit_cost     cost estimates for fits that learn from saved states
combined     sums of generators
executors    the executor that runs steps in this process
host         loads plugins, fills the registries, isolates broken plugins
guard        turns a plugin's exceptions and wrong return values into errors that name it
validation   checks plugin values against their contracts
testing/     conformance checks for a plugin's own tests
"""
