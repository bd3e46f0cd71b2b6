"""Experiments that use the library by its public names."""
