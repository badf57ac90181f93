"""The flake, really evaluated, built and run by nix, on a nixpkgs of our own and offline."""

import shutil

import pytest
from backplane_core.version import __version__

SYSTEMS = {"x86_64-linux", "aarch64-linux", "aarch64-darwin"}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def system(nix):
    return nix.json(
        "eval", "--json", "--impure", "--expr", "builtins.currentSystem", override=False
    )


@pytest.fixture
def changed(nix, tmp_path):
    """Another copy of the source, to break or extend."""
    copy = tmp_path / "source"
    shutil.copytree(nix.source, copy)
    return type(nix)(copy, nix.stub, dict(nix.environment))


def test_the_lock_agrees_with_the_inputs(nix):
    metadata = nix.json(
        "flake", "metadata", "--json", "--no-update-lock-file", nix.flake(), override=False
    )
    nodes = metadata["locks"]["nodes"]
    assert set(nodes) == {"root", "nixpkgs"}
    assert nodes["nixpkgs"]["original"]["ref"] == "nixos-26.05"


def test_a_lock_that_disagrees_is_seen(changed):
    flake = changed.source / "flake.nix"
    flake.write_text(flake.read_text().replace("nixos-26.05", "nixos-25.11"))
    result = changed(
        "flake", "metadata", "--no-update-lock-file", changed.flake(), override=False, check=False
    )
    assert result.returncode != 0


def test_the_outputs(nix):
    outputs = nix.json("flake", "show", "--json", nix.flake())
    for kind, names in {
        "packages": {"default", "cpu", "torch"},
        "apps": {"default", "cpu", "torch"},
        "devShells": {"default"},
        "checks": {"starts", "third-party"},
    }.items():
        assert {name: set(found) for name, found in outputs[kind].items()} == dict.fromkeys(
            SYSTEMS, names
        ), kind
    assert set(outputs["overlays"]) == set(outputs["nixosModules"]) == {"default"}


def test_run_help(nix):
    shown = nix("run", nix.flake(), "--", "--help").stdout
    assert "--model-id" in shown
    assert "--backend" in shown


def test_version_comes_from_the_manifests(nix, system):
    name = nix.json("eval", "--json", nix.flake(f"packages.{system}.cpu.environment.name"))
    assert name
    version = nix("run", nix.flake("cpu"), "--", "--version").stdout
    assert __version__ in version


def test_flake_check(nix):
    nix("flake", "check", nix.flake())


def test_the_backend_comes_from_the_store(nix):
    listing = nix.json("run", nix.flake("cpu"), "--", "backends", "--json")
    (llamacpp,) = [backend for backend in listing if backend["name"] == "llamacpp"]
    assert llamacpp["version"] == __version__


def test_pytorch_has_a_package_of_its_own(nix):
    """The default package goes without it; the one that has it has its libraries too."""

    def available(output):
        listing = nix.json("run", nix.flake(output), "--", "backends", "--json")
        # The stub's interpreter sees entry points of the host's members, but not the members.
        return {backend["name"]: backend["version"] for backend in listing if backend["available"]}

    assert "torch" not in available("cpu")
    assert available("torch").items() >= {"torch": __version__, "llamacpp": __version__}.items()


def test_a_server_without_the_engine_of_a_backend_is_not_built(changed):
    """nixpkgs not having what an extra asks for is seen when the server is put together."""
    manifest = changed.source / "backends" / "torch" / "pyproject.toml"
    manifest.write_text(manifest.read_text().replace('"torch>=2.11"', '"no-such-engine>=1"'))
    result = changed("build", "--no-link", changed.flake("torch"), check=False)
    assert result.returncode != 0
    assert "no-such-engine" in result.stderr


def test_a_backend_of_another_family_is_run_from_its_own_package(changed):
    """`--backend alphabet` lives in a family that the default package does not carry."""
    families = changed.source / "nix" / "families.nix"
    other = """
  letters = {
    config = { };
    backends = [ "alphabet" ];
    systems = [ "x86_64-linux" "aarch64-linux" "aarch64-darwin" ];
  };
}
"""
    families.write_text(families.read_text().rstrip().removesuffix("}") + other)
    shutil.copytree(
        changed.source / "docs" / "examples" / "alphabet",
        changed.source / "backends" / "alphabet",
    )
    # The nested `nix run` knows of no override: the copy's own input is the stub.
    flake = changed.source / "flake.nix"
    flake.write_text(
        flake.read_text().replace("github:NixOS/nixpkgs/nixos-26.05", f"path:{changed.stub}")
    )
    (changed.source / "flake.lock").unlink()
    changed("flake", "lock", changed.flake(), override=False)

    def help_page(*flags):
        return changed("run", changed.flake(), "--", *flags, "--help", override=False).stdout

    assert "--alphabet.stride" not in help_page()
    assert "--alphabet.stride" not in help_page("--backend", "llamacpp")
    assert "--alphabet.stride" in help_page("--backend", "alphabet")
    assert "--alphabet.stride" in help_page("--backend=alphabet")
    changed.environment["BACKPLANE_BACKEND"] = "alphabet"
    assert "--alphabet.stride" in help_page()


def test_a_dependency_that_nixpkgs_lacks_is_named(changed):
    manifest = changed.source / "core" / "pyproject.toml"
    text = manifest.read_text()
    manifest.write_text(text.replace('"pluggy>=1.5"', '"pluggy>=1.5",\n  "no-such-thing>=1"'))
    result = changed("build", "--no-link", changed.flake("cpu"), check=False)
    assert result.returncode != 0
    assert "no-such-thing" in result.stderr


def test_a_module_that_does_not_import_fails_the_build(changed):
    module = changed.source / "core" / "src" / "backplane_core" / "__init__.py"
    module.write_text("import backplane_server_of_yesterday\n")
    result = changed("build", "-L", "--no-link", changed.flake("cpu"), check=False)
    assert result.returncode != 0
    assert "backplane_server_of_yesterday" in result.stderr


def test_the_nixos_module_writes_a_service(nix, system):
    settings = """
      module: let
        lib = (import STUB/lib.nix);
        made = module {
          inherit lib;
          pkgs.stdenv.hostPlatform.system = "SYSTEM";
          config.services.backplane = {
            enable = true;
            package.withPlugins = _: {
              outPath = "/the/package";
              meta.mainProgram = "backplane";
            };
            plugins = _: [ ];
            modelId = "owner/it's a model";
            backend = null;
            host = "127.0.0.1";
            port = 3001;
            openFirewall = true;
            extraFlags = [ "--max-total-tokens" "512" ];
            environmentFile = null;
          };
        };
      in {
        start = made.config.systemd.services.backplane.serviceConfig.ExecStart;
        service = made.config.systemd.services.backplane.serviceConfig;
        ports = made.config.networking.firewall.allowedTCPPorts;
        options = builtins.attrNames made.options.services.backplane;
      }
    """.replace("STUB", str(nix.stub)).replace("SYSTEM", system)
    made = nix.json(
        "eval", "--json", "--impure", nix.flake("nixosModules.default"), "--apply", settings
    )
    assert made["start"] == (
        "/the/package/bin/backplane '--hostname' '127.0.0.1' '--port' '3001' "
        "'--model-id' 'owner/it'\\''s a model' '--max-total-tokens' '512'"
    )
    assert made["service"]["KillMode"] == "mixed"
    assert made["service"]["TimeoutStopSec"] > 90 + 5 + 2 + 5, "the grace, and what follows it"
    assert made["ports"] == [3001]
    assert "environmentFile" in made["options"]
