"""The native layer: the only modules that touch `llama_cpp`, its ctypes bindings."""

import os

from backplane_llamacpp.native.bindings import import_declarations

# Read once, when libgomp is loaded with llama.cpp. By default its threads spin at a barrier for
# milliseconds, and on a machine where anything else computes (our own server does) each layer waits
# for the scheduler; without spinning they pay a system call at every barrier, which halves the
# speed. So they spin for about half a millisecond, longer than our server interrupts a thread for a
# step's tokens. Whoever sets either variable is obeyed.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "50000")

import_declarations()  # after the variable, since it loads the library
