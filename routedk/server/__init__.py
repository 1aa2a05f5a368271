"""`routedk serve`: a program and its student over HTTP."""
