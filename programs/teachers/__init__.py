"""Teachers, which distill knowledge from sessions: language models and gold annotations."""
