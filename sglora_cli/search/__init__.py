"""Search and classify a user's own photos, with and without an adapter.

photos       the photos that the user passes: a folder, one photo, or a list
encoder      a backbone with an optional adapter, which embeds sentences and photos
ranking      rankings by score, and the difference of two rankings
comparison   rank photos for sentences, or sentences for photos, without and with an adapter
relevance    measure how well relevant photos rank, without and with the adapter
query        search queries: a sentence, a photo, or both
results      photos ranked for one query
classes      classify photos by names
album        photos with an encoder: search, classify, judge
copies       copy photos into a new folder
"""
