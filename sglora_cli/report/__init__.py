"""Turn rows into figures and pages.

builds       combines the rows files of several builds into one table
load         combines rows files into one report
charts       the content of figures, as numbers
plot         draws charts as SVG and PNG
figures      figures that need the pack
examples     best photos of a caption, with and without the adapter
content      collects all possible figures, and why others are missing
html         renders templates/ with embedded pictures
pages        the pages of report and data check
photo_pages  the pages of search, classify and try
"""
