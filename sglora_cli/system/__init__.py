"""This machine and its user.

paths      user folders
settings   settings: read, found, written
locks      one process at a time makes a file or changes a pack
cache      what lies in the cache, leases on it, making room
hardware   device, precision, memory, disk
progress   progress on standard error, and the log file of a long job
"""
