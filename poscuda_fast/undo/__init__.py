"""Undo: a sealed journal of originals, and the order of events; it handles bytes and batches, not audio."""
