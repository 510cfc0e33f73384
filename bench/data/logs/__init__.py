"""Makes groups, histories and labels of event logs, and simulates recommenders."""
