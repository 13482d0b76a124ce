"""Queries whose results people read."""
