"""Measure how good adapters are.

retrieval   recall at k, accuracy and chance level
bootstrap   confidence intervals of differences
candidates  adapters to measure, and their files
measure     measures adapters on tasks and caches the results
tasks       selects the tasks to measure on
leaks       checks what a pack has already seen of these tasks
sentences   measures whether the sentence matters, by comparing it with other sentences
methods     lists the methods and makes their adapters for a task
evidence    the data of a task that a method may use or has seen
ablations   methods with one setting changed
request     the request of a `sglora bench` command
plan        turns a request into a plan
driver      what the process that drives a job shares with its workers
job         a measurement as steps, for executors
run         turns a plan into rows and a report
rows        aggregates rows into means, spreads and recovery
rows_file   stores rows on disk as they are measured
paper       the numbers that the paper prints
tables      turns rows into tables with marks, for all reporters and pages
"""
