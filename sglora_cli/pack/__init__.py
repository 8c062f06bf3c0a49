"""Packs and recipes on disk.

recipe          recipes and sources: roles of tasks, their descriptions
recipe_parser   TOML -> recipe, and everything wrong with it at once, with lines
manifest        what pack.json must say, and what it may not
moments         where photos and captions of its tasks lie
learned         the photos that a pack learned from, as hashes
pack            a pack: experts, index, generators, evaluation, read when asked
writer          writes or changes a pack's folder, its manifest and its card
library         which packs and recipes this machine has, and which one is meant
loaded          a pack with its backbone and host, opened for work
archive         a pack as one file, and who signed it
health          whether a trained generator does anything
dependence      how much adapters depend on the sentence
"""
