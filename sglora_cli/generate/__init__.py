"""Sentence -> adapter.

session     pack, model and generator, which answer descriptions
generated   what came out: samples, prior, coverage; saved, attached
many        a file of sentences, an adapter each
explain     why an adapter is what it is
"""
