"""The command line.

main         the group; errors and signals become exit codes
options      what commands share
output       tables, JSON, safe text
completion   names for the shell
schemas      what --json prints
describe     what an adapter, a pack or a recipe is, in lines
diagnosis    what works on this machine (`sglora doctor`)
versions     what is installed
scaffold     what `sglora plugins new` writes, from templates/
commands/    one file a command; data/ and pack/ are folders
"""
