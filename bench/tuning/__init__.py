"""Optuna studies: what is searched, by whom, and what was found."""
