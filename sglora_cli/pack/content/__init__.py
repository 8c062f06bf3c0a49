"""The files of a pack's folder.

manifest     pack.json and its checks
names        file names of tasks
tasks        the tasks, read line by line
shards       the experts, read row by row
gauge        the gauge of the experts
moments      mean embeddings of the seen tasks' photos and captions
learned      hashes of the photos that the pack was trained on
evaluation   the evaluation data of an unseen task
format_two   packs of format 2, the current format
format_one   packs of format 1, which are read but no longer written
"""
