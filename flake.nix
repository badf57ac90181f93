{
  description = "Backplane: one LLM server, any accelerator";

  # The only input. Python, the engines and their libraries come from this one package set, so that
  # its binary cache serves everything but our own wheels.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      families = import ./nix/families.nix;
      overlay = import ./nix/overlay.nix;

      # What one system offers. A package set is evaluated per hardware family, and lazily: the
      # CPU family never reads the unfree or patched packages of another.
      forSystem =
        system:
        let
          available = lib.filterAttrs (_: family: lib.elem system family.systems) families;
          packagesOf =
            family:
            import nixpkgs {
              inherit system;
              inherit (family) config;
              overlays = [ overlay ];
            };
          pkgs = packagesOf available.cpu;
        in
        rec {
          inherit pkgs;
          servers = lib.mapAttrs (
            _: family: (packagesOf family).backplane.override { inherit (family) backends; }
          ) available;
          dispatcher = pkgs.callPackage ./nix/dispatcher.nix {
            flake = "path:${self}";
            families = available;
            server = servers.cpu;
          };
        };

      systems = lib.unique (lib.concatMap (family: family.systems) (lib.attrValues families));
      forEachSystem = pick: lib.genAttrs systems (system: pick (forSystem system));
      app = package: {
        type = "app";
        program = lib.getExe package;
      };
    in
    {
      packages = forEachSystem (on: on.servers // { default = on.dispatcher; });

      apps = forEachSystem (
        on: lib.mapAttrs (_: app) on.servers // { default = app on.dispatcher; }
      );

      devShells = forEachSystem (on: {
        default = on.pkgs.callPackage ./nix/shell.nix { };
      });

      # Imported, not called with callPackage: that would add attributes that are no derivations.
      checks = forEachSystem (
        on:
        import ./nix/checks.nix {
          inherit lib;
          inherit (on.pkgs) runCommand;
          server = on.servers.cpu;
        }
      );

      overlays.default = overlay;

      nixosModules.default = import ./nix/module.nix self;
    };
}
