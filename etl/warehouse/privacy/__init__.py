"""Erasure and pruning."""
