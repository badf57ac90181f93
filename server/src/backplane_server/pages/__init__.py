"""The two pages for browsers, each self-contained: nothing is loaded from elsewhere."""
