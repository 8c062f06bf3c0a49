"""Packs and recipes on disk.

recipe          recipes and sources: roles of tasks, their descriptions
recipe_parser   TOML -> recipe, and everything wrong with it at once, with lines
manifest        what pack.json must say, and what it may not
names           the files of tasks in a pack
tasks           the tasks of a pack, read a line at a time
shards          its experts, read a row at a time
gauge           the gauge of its experts
format_two      packs as they are written: what they have beside experts and tasks
format_one      packs as they were written before, which are still read
moments         where photos and captions of its tasks lie
learned         the photos that a pack learned from, as hashes
evaluation      what a pack carries of an unseen task
pack            a pack: experts, index, generators, evaluation, read when asked
coverage        how close a sentence is to what a pack has seen
draft           a changed copy of a pack, before it takes the old one's place
writer          writes or changes a pack's folder, its manifest and its card
library         which packs and recipes this machine has, and which one is meant
loaded          a pack with its backbone and host, opened for work
archive         a pack as one file, and who signed it
health          whether a trained generator does anything
dependence      how much adapters depend on the sentence
"""
