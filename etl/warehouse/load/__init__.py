"""Loading a walk: observe, compare, stage, confirm, resolve, publish."""
