"""The parts that every role shares: the messages of each hop, errors, the broker port, settings, logs."""
