"""Writes views to files that other programs read, and keeps the history in Delta tables.

    files     views to CSV or Parquet in a folder, whole or not at all
    target    that folder, or the same in an object store: what may be there, and the manifest
    parts     one file of one view: CSV, or Parquet through pyarrow
    delta     the history and its certificates in Delta tables: replaced by account, and erased
    extras    which libraries each of them needs

The rows come from ``etl.warehouse.read.extract`` as lines of CSV, and pyarrow parses those.
"""
