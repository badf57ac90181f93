{
  # Takes the place of nixpkgs where it cannot be downloaded: exactly what our flake uses of it.
  outputs = _: { lib = import ./lib.nix; };
}
