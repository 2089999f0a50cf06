"""Training from tokens: windows, sampling, loading, masks, the loop, and features of a trained model."""
