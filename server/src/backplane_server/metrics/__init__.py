"""Counts, gauges and histograms under TGI's exact names, and their text form."""
