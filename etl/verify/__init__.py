"""Check the invariants (``checks``), derive certificates again, ask the service."""
