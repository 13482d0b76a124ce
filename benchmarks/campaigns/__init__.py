"""Experiments that take minutes; each is run by hand and prints its figures."""
