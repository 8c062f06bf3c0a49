"""Sentences and a user's own photos: which photo fits, and what an adapter changes.

photos       the photos that the user names: a folder, one photo, or a list
encoder      a backbone, with an adapter or without, that embeds sentences and photos
ranking      items in the order of their scores, and how different two orders are
comparison   photos ranked for sentences, or sentences for photos, without and with an adapter
relevance    how well the right photos rank without and with the adapter
query        what photos are compared with: a sentence, a photo, or both
results      photos ranked for one query
classes      photos sorted by names
album        photos with an encoder: searched, sorted, judged
copies       photos copied into a new folder
"""
