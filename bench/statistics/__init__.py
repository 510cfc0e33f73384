"""From values of several seeds to intervals, tests and ranks; nothing here knows of records."""
