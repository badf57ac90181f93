"""What needs torch: imported in a worker alone, never by the launcher or a server."""
