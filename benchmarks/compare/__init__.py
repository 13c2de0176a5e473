"""Plenary beside one Node process, python-socketio over RabbitMQ, and the floor beneath it, in one run."""
