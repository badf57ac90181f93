# One Python environment with launcher, server, backends and plugins, of which only our commands are
# exposed. Discovery stays that of entry points: what is in the environment is what is installed.
{
  lib,
  python,
  runCommand,
  makeWrapper,
  backends ? (import ./families.nix).cpu.backends,
}:
let
  commands = [
    "backplane"
    "text-generation-launcher"
  ];

  # What pip leaves to whoever installs a backend, since it is chosen by hardware: here the package
  # set has chosen.
  withEngine = backend: [ backend ] ++ backend.optional-dependencies.engine or [ ];

  withPlugins =
    plugins:
    let
      environment = python.withPackages (
        py:
        [
          py.backplane-launcher
          py.backplane-server
        ]
        ++ lib.concatMap (name: withEngine py."backplane-${name}") backends
        ++ lib.concatMap (plugin: plugin py) plugins
      );
    in
    runCommand "backplane"
      {
        nativeBuildInputs = [ makeWrapper ];
        passthru = {
          inherit environment;
          # server.withPlugins (py: [ py.mine ]) is a server too, to which more can be added.
          withPlugins = plugin: withPlugins (plugins ++ [ plugin ]);
        };
        meta = {
          description = "One LLM server, any accelerator";
          license = lib.licenses.asl20;
          mainProgram = "backplane";
        };
      }
      ''
        mkdir -p $out/bin
        for command in ${lib.concatStringsSep " " commands}; do
          makeWrapper ${environment}/bin/$command $out/bin/$command
        done
      '';
in
withPlugins [ ]
