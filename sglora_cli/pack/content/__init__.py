"""What a pack's folder holds, file by file.

manifest     what pack.json must say, and what it may not
names        the files of tasks
tasks        the tasks, read a line at a time
shards       the experts, read a row at a time
gauge        the gauge of the experts
moments      where photos and captions of the seen tasks lie
learned      the photos that the pack learned from, as hashes
evaluation   what is carried of an unseen task
format_two   packs as they are written: what they have beside experts and tasks
format_one   packs as they were written before, which are still read
"""
