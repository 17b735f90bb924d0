"""The ways to other processes, to PostgreSQL and to Prometheus."""
