"""What surrounds the engine in the daemon process: configuration, logs, process, control."""
