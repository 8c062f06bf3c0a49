"""Fuzzing of everything that reads a file.

mutators.py    damage to bytes, texts and values     containers.py  to files with a structure of their own
seeds.py       good files, made by the program       readers.py     who reads them: the table
"""
