"""`plenary status`: reads a cluster's Redis and RabbitMQ, and prints tables or JSON."""
