"""This machine and its user.

paths         user folders
settings      the settings file, and the effective settings
locks         locks for creating files and changing packs
fingerprints  cached values derived from files
transfer      a least speed of downloads, and pauses between attempts
cache         content, leases and cleaning of the cache
hardware      device, precision, memory, disk
display       representation of objects: a line, and a table in a notebook
progress      progress on standard error, and the log file of a long job
"""
