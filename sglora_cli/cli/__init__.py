"""The command line.

main              the group; errors and signals become exit codes
options           what commands share: host and packs, options, arguments
output            tables, JSON, confirmation, safe text
completion        names for the shell, as `shell_complete` of options
schemas           what --json prints
describe          what a pack or a recipe is, in lines
describe_adapter  what an adapter file is, in lines
diagnosis         what works on this machine (`sglora doctor`)
versions          what is installed
scaffold          what `sglora plugins new` writes, from templates/
commands/         one file a command; data/ and pack/ are folders
"""
