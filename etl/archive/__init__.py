"""The archive: every accepted reply of every published run, so that history can be rebuilt.

``stores``        where it is kept: a folder, or an object store (``object_store``)
``layout``        names, and the manifest that lists what belongs to a run
``segment``       the file of one staging transaction: its replies, compressed
``reader``        what an archive contains
``writer``        ``Recorder``: writes it during a run
``catalogue``     the runs of several archives, in the order of publication, and their gaps

Above ``warehouse``, because the ledger decides which replies belong to a run; below ``run`` and
``replay``.  The format is a contract: docs/reference/archive.md.
"""
