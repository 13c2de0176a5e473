"""Compares Plenary with one Node process, python-socketio over RabbitMQ, and its bare hops, in one run."""
