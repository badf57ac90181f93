# `nix run . -- --backend X`: a backend of the CPU family runs at once; one of another family is
# handed to `nix run` of this very source, whose closure is fetched only then.
{
  lib,
  writeShellApplication,
  flake,
  families,
  server,
}:
let
  isLocal = backend: lib.elem backend families.cpu.backends;
  arms = lib.mapAttrsToList (
    name: family:
    let
      own = lib.filter (backend: !isLocal backend) family.backends;
    in
    lib.optionalString (own != [ ]) "${lib.concatStringsSep "|" own}) family=${name} ;;"
  ) families;
in
writeShellApplication {
  name = "backplane";
  text = ''
    backend=''${BACKPLANE_BACKEND:-}
    previous=
    for argument in "$@"; do
      if [ "$previous" = --backend ]; then backend=$argument; fi
      case $argument in
        --) break ;;
        --backend=*) backend=''${argument#--backend=} ;;
      esac
      previous=$argument
    done

    family=cpu
    case $backend in
      ${lib.concatStringsSep "\n  " (lib.filter (arm: arm != "") arms)}
      *) ;;
    esac

    if [ "$family" = cpu ]; then
      exec ${lib.getExe server} "$@"
    fi
    if ! command -v nix >/dev/null; then
      echo "backplane: backend $backend is in another package; run: nix run ${flake}#$family -- $*" >&2
      exit 1
    fi
    exec nix --extra-experimental-features 'nix-command flakes' run "${flake}#$family" -- "$@"
  '';
}
