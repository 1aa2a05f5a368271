"""A language model whose answers are journaled and whose spending is bounded."""
