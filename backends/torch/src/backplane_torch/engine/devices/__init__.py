"""What differs between kinds of hardware: one `TorchDevice` each."""
