"""What decides: which worker answers, with what tokens, within which limits. No HTTP, no JSON."""
