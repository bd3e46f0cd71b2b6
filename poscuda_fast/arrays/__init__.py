"""Arrays of clips: in memory, on a GPU, mapped from a file, or in Zarr; and the verbs that protect them."""
