"""How good is an adapter?

retrieval   recall at k, accuracy, chance
bootstrap   intervals of differences
measure     adapters x tasks -> rows, nothing made or measured twice
tasks       which tasks are measured on
leaks       what a pack has seen of them
sentences   whether the sentence matters: other sentences, and what the right one gains
methods     which methods there are, their adapters for a task
evidence    what methods may see of a task, or have seen
ablations   methods with one thing changed
request     what `sglora bench` is asked for
plan        a request -> a plan
run         a plan -> rows and a report
rows        rows put together: means, spreads, recovery
rows_file   rows on disk, appended as they are measured
paper       the numbers that the paper prints
tables      rows -> tables with marks, for every reporter and page
"""
