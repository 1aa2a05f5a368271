"""Knowledge in the prompt: what is kept, what is shown, and how it is found."""
