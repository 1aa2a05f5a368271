"""What distills knowledge from sessions: language models, and gold annotations."""
