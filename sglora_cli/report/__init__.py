"""Rows -> figures and pages.

load       rows files -> one report
charts     what a figure shows, as numbers
plot       charts -> SVG and PNG
figures    figures that need the pack
examples   a caption's best photos, before and after
content    all figures there can be, and why others are missing
"""
