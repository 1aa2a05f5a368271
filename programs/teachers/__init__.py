"""What distils knowledge from sessions: language models, and gold annotations."""
