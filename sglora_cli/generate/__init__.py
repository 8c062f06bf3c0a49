"""Generate adapters from sentences.

session     a pack, model and generator that answer descriptions
generated   the result: samples, prior and coverage, which can be saved or attached
many        one adapter for each sentence of a file
explain     explains an adapter
"""
