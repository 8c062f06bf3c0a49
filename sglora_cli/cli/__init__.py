"""The command line.

main              the program, which turns errors and signals into exit codes
group             command groups, and features of every command: --quiet, help without broken words
usage             click's usage errors in the style of all other errors
options           shared by commands: host and packs, options, arguments
output            tables, JSON, confirmation, escaped text
photo_output      status lines of `search` and `classify`
completion        names for shell completion, used as `shell_complete` of options
schemas           JSON Schemas of --json output
describe          text description of a pack
describe_recipe   text description of a recipe: facts, sources, settings with their defaults
describe_adapter  text description of an adapter file
diagnosis         checks of this machine (`sglora doctor`)
versions          installed versions
scaffold          `sglora plugins new`, which writes files from templates/
commands/         one file per command; data/ and pack/ are folders
"""
