"""What data sets share: readers of raw tables, histories, negatives, classes, and simulated recommenders."""
