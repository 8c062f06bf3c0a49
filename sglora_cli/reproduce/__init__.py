"""The paper's tables: which steps make one, what these need, and the numbers beside the paper's.

targets     what the paper has, and what makes each of its tables and figures
job         one table on this machine: its recipes, data and folder
steps       a step of a job as a value
sources     what is here of a data set and its captions
plan        a job -> its steps: done or not, bytes, time, terms, and what is in the way
run         the steps that are left, one after another
comparison  measured numbers beside the paper's
"""
