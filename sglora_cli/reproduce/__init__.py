"""The paper's tables: which steps make one, what these need, and the numbers beside the paper's.

targets     what the paper has, and what makes each of its tables and figures
job         one table on this machine: its recipes, data and folder
steps       a step of a job as a value
sources     what is here of a data set and its captions
requests    a measurement as a request and a command line of `sglora bench`
keys        what results follow from, and so whether they are done
costs       what a step costs: bytes, time, terms, and what is in its way
plan        a job -> its steps
run         the steps that are left, one after another
comparison  measured numbers beside the paper's
"""
