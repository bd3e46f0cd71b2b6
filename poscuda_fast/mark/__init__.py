"""The mark of each class and where it goes: labels, drawing, plan and batches of samples. Pure NumPy, no files."""
