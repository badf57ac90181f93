# For withPlugins (py: [ (py.callPackage ./package.nix { }) ]).
{
  buildPythonPackage,
  hatchling,
  backplane-core,
}:
buildPythonPackage {
  pname = "backplane-alphabet";
  version = "0.1.0";
  pyproject = true;
  src = ./.;
  build-system = [ hatchling ];
  dependencies = [ backplane-core ];
  pythonImportsCheck = [ "backplane_alphabet.plugin" ];
}
