"""A small HTTP service that publishes a model's outputs marked (service.py), and its load test."""
