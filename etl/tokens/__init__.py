"""Rows of ``uploadToken.list`` become tokens; pure.

token       the shapes and limits · page  a reply with its decoded rows
decode      a whole page at a time · row  one irregular row · values, extra  its parts
pseudonyms  replacements of erased data
"""
