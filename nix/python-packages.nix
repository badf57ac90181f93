# Our distributions as an extension of a nixpkgs Python package set. Version and dependencies are
# read from each pyproject.toml, so there is no second list to keep true.
lib: py:
let
  member =
    folder:
    let
      inherit (lib.importTOML (folder + "/pyproject.toml")) project;
      # "huggingface-hub>=1.0; python_version < '4'" -> "huggingface-hub"
      named = requirement: lib.toLower (lib.head (builtins.match "([A-Za-z0-9._-]+).*" requirement));
      packagesFor = map (requirement: py.${named requirement});
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
