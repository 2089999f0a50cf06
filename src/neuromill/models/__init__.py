"""Networks that are trained on tokens: the criss-cross transformer of MEG-XL. They know tensors, not recordings."""
