# Built by `nix flake check`.
{
  lib,
  runCommand,
  server,
}:
{
  # The command starts, and child processes find their packages in the store.
  starts = runCommand "backplane-starts" { } ''
    ${lib.getExe server} --help > $out
    grep -q -- --model-id $out
    ${server.environment}/bin/python -c '
    import backplane_core, backplane_launcher, backplane_server
    for package in (backplane_core, backplane_launcher, backplane_server):
        assert package.__file__.startswith("${builtins.storeDir}"), package.__file__
    '
  '';

  # A stranger's plugin, added with withPlugins, is discovered like one of ours.
  third-party = runCommand "backplane-third-party" { } ''
    ${
      lib.getExe (server.withPlugins (py: [ (py.callPackage ../docs/examples/alphabet/package.nix { }) ]))
    } backends --json > $out
    grep -q '"alphabet"' $out
    grep -q '"llamacpp"' $out
  '';
}
