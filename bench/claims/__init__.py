"""Published claims, declared and tested over stored records."""
