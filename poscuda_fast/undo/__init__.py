"""The undo: a sealed journal of originals and the order of events; bytes and batches, nothing of audio."""
