"""What somebody with protected data may try in order to learn from it; `table.ATTACKS` lists all of it."""
