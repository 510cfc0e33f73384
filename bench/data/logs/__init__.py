"""What logs of events and simulated recommenders share."""
