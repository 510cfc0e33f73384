"""What a run finds: device, provenance, the processes that share it."""
