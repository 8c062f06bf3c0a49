"""Rows -> figures and pages.

builds       several builds' rows files -> the rows of one table
load         rows files -> one report
charts       what a figure shows, as numbers
plot         charts -> SVG and PNG
figures      figures that need the pack
examples     a caption's best photos, before and after
content      all figures there can be, and why others are missing
html         a page and the pictures in it, by templates/
pages        the pages of report and data check
photo_pages  the pages of search, classify and try
"""
