"""Rebuild a warehouse from its archive (``runs``), or compare the two (``check``)."""
