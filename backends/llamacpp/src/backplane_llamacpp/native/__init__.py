"""The native layer: the only modules that touch `llama_cpp`, its ctypes bindings."""

import os

from backplane_llamacpp.native.bindings import import_declarations

# Read once, when libgomp is loaded with llama.cpp. By default its threads spin at every barrier,
# so that on a machine where anything else computes (our own server does) each layer waits for the
# scheduler: measured at 5 to 10 times slower on two busy cores. Whoever sets it is obeyed.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import_declarations()  # after the variable, since it loads the library
