"""``kaltura-etl report``: one self-contained HTML file.

read       the rows that the page shows, from the warehouse, in one transaction
facts      what follows from them: days without gaps, totals, notes on what cannot be known
words      numbers, times and other people's text as people read them
weeks      week over week, and the share of uploads closed within 24 hours
trust      how fresh and how complete the data are
charts     charts as SVG (by Vega-Lite, if the extra ``report`` is installed)
page       the templates, filled in
index      the page of all accounts
write      the file, whole or not at all
"""
