"""What somebody who holds protected data may try in order to learn from it: `table.ATTACKS` names all of it."""
