"""Tokenizers: from normalised signal rows to small integers and back. Knows tensors, not recordings or stores."""
