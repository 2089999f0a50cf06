"""Sharing of models and tokenizers on the Hugging Face Hub."""
