"""Packs and recipes on disk.

content         what a pack's folder holds, file by file
recipe          recipes and sources: roles of tasks, their descriptions
recipe_parser   TOML -> recipe, and everything wrong with it at once, with lines
roles           which roles the tasks of a data set get, and why
own_recipe      a recipe of one's own, as a file to change
pack            a pack: experts, index, generators, evaluation, read when asked
coverage        how close a sentence is to what a pack has seen
draft           a changed copy of a pack, before it takes the old one's place
writer          writes or changes a pack's folder, its manifest and its card
origin          references to packs on the Hugging Face hub, and what was pulled from there
library         which packs and recipes this machine has, and which one is meant
loaded          a pack with its backbone and host, opened for work
archive         a pack as one file, and who signed it
hub             packs from the Hugging Face hub
hub_client      requests to the hub, and what the user can do about each failure
hub_upload      a pack as one commit on the hub
card            the README.md of a pack's repository on the hub
health          whether a trained generator does anything
dependence      how much adapters depend on the sentence
"""
