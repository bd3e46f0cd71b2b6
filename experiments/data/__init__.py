"""Folders of audio as arrays that train and measure fast."""
