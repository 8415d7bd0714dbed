"""What every stage program shares: lifecycle, telemetry, artifacts, checkpoints, processes. No ML library."""
