"""Makes bundles of a session's items, by their titles or by the intents named for them."""
