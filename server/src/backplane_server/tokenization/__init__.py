"""Text to token ids, in the server or through a worker. Special tokens' texts become their ids."""
