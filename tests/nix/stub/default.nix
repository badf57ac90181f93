# `import nixpkgs { system, config, overlays }`, small enough to build in a second without a network.
{
  system,
  config ? { },
  overlays ? [ ],
}:
let
  lib = import ./lib.nix;
  host = import ./host.nix;

  derive =
    {
      name,
      script,
      attributes ? { },
      extra ? { },
    }:
    derivation (
      attributes
      // {
        inherit name system;
        builder = "/bin/sh";
        args = [
          "-euc"
          "export PATH=/usr/local/bin:/usr/bin:/bin HOME=$TMPDIR\n${script}"
        ];
      }
    )
    // extra;

  # callPackage: arguments by name from `scope`; the result can be overridden with known names only.
  callWith =
    scope: file: overrides:
    let
      function = if builtins.isFunction file then file else import file;
      wanted = builtins.functionArgs function;
      strange = lib.filter (name: !(wanted ? ${name})) (lib.attrNames overrides);
      absent = lib.filter (name: !wanted.${name} && !(scope ? ${name}) && !(overrides ? ${name})) (
        lib.attrNames wanted
      );
      result = function (builtins.intersectAttrs wanted scope // overrides);
    in
    if strange != [ ] then
      throw "override: no argument ${toString strange}"
    else if absent != [ ] then
      throw "callPackage: nixpkgs has no ${toString absent}"
    else if builtins.isAttrs result then
      result // { override = more: callWith scope file (overrides // more); }
    else
      result;

  named = name: derive {
    inherit name;
    script = "mkdir -p $out/bin";
  };

  base = {
    inherit lib config;
    stdenv.hostPlatform = { inherit system; };
    pythonPackagesExtensions = [ ];
    gcc = named "gcc";
    git = named "git";
    gnumake = named "gnumake";
    uv = named "uv";
    makeWrapper = named "makeWrapper";

    runCommand =
      name: settings: script:
      derive {
        inherit name;
        attributes = builtins.removeAttrs settings [
          "meta"
          "passthru"
        ];
        extra = (settings.passthru or { }) // {
          meta = settings.meta or { };
        };
        script = ''
          makeWrapper() {
            program=$1 target=$2
            shift 2
            if [ $# -gt 0 ]; then echo "makeWrapper: no option $1" >&2; exit 1; fi
            printf '#!/bin/sh\nexec %s "$@"\n' "$program" > $target
            chmod +x $target
          }
          ${script}
        '';
      };

    writeShellApplication =
      { name, text }:
      derive {
        inherit name;
        attributes = {
          inherit text;
          passAsFile = [ "text" ];
        };
        extra.meta.mainProgram = name;
        script = ''
          mkdir -p $out/bin
          { printf '#!/bin/bash\nset -o errexit -o nounset -o pipefail\n'; cat $textPath; } > $out/bin/${name}
          chmod +x $out/bin/${name}
          bash -n $out/bin/${name}
          if command -v shellcheck > /dev/null; then shellcheck $out/bin/${name}; fi
        '';
      };

    mkShell =
      { packages }:
      derive {
        name = "shell";
        attributes = { inherit packages; };
        script = "touch $out";
      };
  };

  packages = builtins.foldl' (previous: overlay: previous // overlay packages previous) (
    base
    // {
      callPackage = callWith packages;
      python313 = import ./python.nix {
        inherit
          lib
          host
          derive
          callWith
          ;
        extensions = packages.pythonPackagesExtensions;
      };
    }
  ) overlays;
in
packages
