"""Prefect flows: thin wrappers over ``neuromill.stages``, no science in them."""
