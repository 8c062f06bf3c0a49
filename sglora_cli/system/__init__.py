"""This machine and its user.

paths         user folders
settings      the settings file, and the settings in force
locks         one process at a time makes a file or changes a pack
fingerprints  what follows from files alone, remembered
cache         what is in the cache, leases on it, making room
hardware      device, precision, memory, disk
display       objects as a person sees them: a line, and a table in a notebook
progress      progress on standard error, and the log file of a long job
"""
