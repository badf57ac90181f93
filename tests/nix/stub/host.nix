# The test writes the interpreter's path into its copy of this folder: a pure evaluation cannot read
# the environment.
{ python = throw "stub nixpkgs: host.nix was not filled in"; }
