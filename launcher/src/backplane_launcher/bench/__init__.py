"""`backplane bench`: how fast a server answers, measured from outside; and engines, from inside."""
