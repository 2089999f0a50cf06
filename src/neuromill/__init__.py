"""NeuroMill: public brain recordings in, token shards a model can be trained on out."""

__version__ = "0.1.0"
