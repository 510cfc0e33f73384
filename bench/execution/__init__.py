"""From specs to stored records: where runs happen, and what is done when they end badly."""
