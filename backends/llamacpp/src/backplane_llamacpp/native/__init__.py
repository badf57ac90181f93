"""The native layer: the only modules that touch `llama_cpp`, its ctypes bindings."""
