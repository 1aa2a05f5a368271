"""`routedk review`: a page where people look at bundles, correct them and accept them."""
