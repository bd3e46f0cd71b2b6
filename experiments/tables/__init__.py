"""Stored results as tables and plots."""
