"""One controller per family of routes. Handlers translate; the services decide."""
