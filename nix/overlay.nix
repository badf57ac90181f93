# Adds names and changes none, so everything else keeps coming from the binary cache.
final: prev: {
  pythonPackagesExtensions = prev.pythonPackagesExtensions ++ [
    (py: _: import ./python-packages.nix final.lib py)
  ];

  # By version: nixpkgs' default Python moves on before every engine has followed.
  backplane = final.callPackage ./server.nix { python = final.python313; };
}
