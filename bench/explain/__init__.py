"""How the tasks of a trained method work on one another."""
