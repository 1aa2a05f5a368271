"""The routed student as a language model: batches, grammars, likelihoods."""
