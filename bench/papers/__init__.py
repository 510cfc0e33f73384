"""Published tables, set beside figures made here."""
