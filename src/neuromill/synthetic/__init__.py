"""A small OpenNeuro snapshot made of nothing but a seed: for the demo and for tests, offline."""
