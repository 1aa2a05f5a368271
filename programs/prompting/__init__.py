"""The prompt layout: how sessions are rendered and answers read."""
