"""Rows -> figures and pages.

builds     several builds' rows files -> the rows of one table
load       rows files -> one report
charts     what a figure shows, as numbers
plot       charts -> SVG and PNG
figures    figures that need the pack
examples   a caption's best photos, before and after
content    all figures there can be, and why others are missing
pages      the pages of report, try and data check, by templates/
"""
