"""Figures: what they are made of, what they show, how they are drawn."""
