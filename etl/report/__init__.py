"""``kaltura-etl report``: one self-contained HTML file.

read       the rows that the page shows, from the warehouse, in one transaction
facts      what follows from them: days without gaps, shares, how far the data can be trusted
words      numbers, times and other people's text as people read them
charts     charts as SVG (by Vega-Lite, if the extra ``report`` is installed)
page       the templates, filled in
write      the file, whole or not at all
"""
