# Our distributions as an extension of a nixpkgs Python package set. Version and dependencies are
# read from each pyproject.toml, so there is no second list to keep true.
lib: py:
let
  member =
    folder:
    let
      inherit (lib.importTOML (folder + "/pyproject.toml")) project;
      # "backplane-core[guidance]==0.1.0; python_version < '4'" -> backplane-core and what its extra
      # guidance adds
      packagesOf =
        requirement:
        let
          parts = builtins.match "([A-Za-z0-9._-]+)(\\[([A-Za-z0-9._,-]+)])?.*" requirement;
          package = py.${lib.toLower (lib.elemAt parts 0)};
          extras = lib.elemAt parts 2;
        in
        [ package ]
        ++ lib.optionals (extras != null) (
          lib.concatMap (extra: package.optional-dependencies.${extra}) (lib.splitString "," extras)
        );
      packagesFor = lib.concatMap packagesOf;
    in
    py.buildPythonPackage {
      pname = project.name;
      inherit (project) version;
      pyproject = true;
      src = folder;
      build-system = [ py.hatchling ];
      dependencies = packagesFor (project.dependencies or [ ]);
      optional-dependencies = lib.mapAttrs (_: packagesFor) (project.optional-dependencies or { });
      # Our bounds are those the tests ran with; what nixpkgs carries beside them is its affair.
      pythonRelaxDeps = true;
      pythonImportsCheck = [ (lib.replaceStrings [ "-" ] [ "_" ] project.name) ];
      meta = {
        inherit (project) description;
        license = lib.licenses.asl20;
        mainProgram = "backplane";
      };
    };

  backends = lib.filterAttrs (_: kind: kind == "directory") (builtins.readDir ../backends);
in
{
  backplane-core = member ../core;
  backplane-server = member ../server;
  backplane-launcher = member ../launcher;
}
// lib.mapAttrs' (name: _: {
  name = "backplane-${name}";
  value = member (../backends + "/${name}");
}) backends
