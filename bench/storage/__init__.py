"""What lies on disk: the cache, files that appear whole, records, studies."""
