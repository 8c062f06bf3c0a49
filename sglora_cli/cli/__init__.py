"""The command line.

main              the program; errors and signals become exit codes
group             groups of commands, and what every command has: --quiet, help with whole words
usage             what click refuses, in the words of all other errors
options           what commands share: host and packs, options, arguments
output            tables, JSON, confirmation, safe text
photo_output      what `search` and `classify` say beside their results
completion        names for the shell, as `shell_complete` of options
schemas           what --json prints
describe          what a pack is, in lines
describe_recipe   what a recipe says: lines, sources, numbers beside their defaults
describe_adapter  what an adapter file is, in lines
diagnosis         what works on this machine (`sglora doctor`)
versions          what is installed
scaffold          what `sglora plugins new` writes, from templates/
commands/         one file a command; data/ and pack/ are folders
"""
