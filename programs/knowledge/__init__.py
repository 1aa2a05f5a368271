"""Knowledge in the prompt: what is kept, what is shown, how it is found."""
