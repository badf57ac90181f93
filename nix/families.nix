# Hardware families, as data: how nixpkgs is configured for one, which backends its server carries,
# best first, and on which systems it can be had. The name is the package's: `nix run .#cpu`.
# `torch` is the CPU family with PyTorch, apart so that whoever does without it downloads none.
{
  cpu = {
    config = { };
    backends = [ "llamacpp" ];
    systems = [
      "x86_64-linux"
      "aarch64-linux"
      "aarch64-darwin"
    ];
  };

  torch = {
    config = { };
    backends = [
      "llamacpp"
      "torch"
    ];
    systems = [
      "x86_64-linux"
      "aarch64-linux"
      "aarch64-darwin"
    ];
  };
}
