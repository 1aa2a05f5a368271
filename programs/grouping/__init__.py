"""Group a session's items into bundles, by their titles or by the intents named for them."""
