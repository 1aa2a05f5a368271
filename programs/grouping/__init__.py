"""From a session's items, or the intents that a student named for them, to bundles."""
