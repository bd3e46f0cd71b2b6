"""What a class is given and where: labels, drawing, plan and batches of samples. Pure NumPy, no files."""
