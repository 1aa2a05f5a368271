"""`routedk review`: a page on which people look at bundles, correct them and accept them."""
