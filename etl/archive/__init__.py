"""The archive: every accepted reply of every published run, so that history can be made again.

``stores``        where it is kept: a folder, or an object store
``layout``        names, and the manifest that says what belongs to a run
``segment``       the file of one staging transaction: its replies, compressed
``read``          what is in an archive
``recorder``      writes it while a run is at work

The format is a contract: docs/reference/archive.md.
"""
