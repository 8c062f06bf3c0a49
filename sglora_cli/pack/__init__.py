"""Packs and recipes on disk.

content         the files of a pack's folder
recipe          recipes and sources: roles of tasks, their descriptions
recipe_parser   parse TOML recipes and report all errors at once, with lines
roles           assign roles to the tasks of a data set and give the reasons
own_recipe      write a recipe file for the user to edit
pack            a pack: experts, index, generators, evaluation, read on demand
coverage        how close a sentence is to the tasks that a pack has seen
draft           a changed copy of a pack, before it replaces the old one
writer          write or change a pack's folder, manifest and card
origin          references to packs on the Hugging Face hub, and what was pulled from there
library         find the packs and recipes of this machine
loaded          a pack with its backbone and host
archive         export and import packs as one file, verify signatures
hub             pull packs from the Hugging Face hub
hub_client      requests to the hub, and hints for each failure
hub_upload      push a pack as one commit
card            the README.md of a pack's repository on the hub
health          check whether a trained generator works
dependence      measure how much adapters depend on the sentence
"""
