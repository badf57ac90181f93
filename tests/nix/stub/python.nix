# A Python package set in the shape of nixpkgs' python3xx. Our packages are really built, with pip
# and the host's interpreter; third-party ones are names that the host's environment provides.
{
  lib,
  host,
  derive,
  callWith,
  extensions,
}:
let
  # Attributes as the pinned nixpkgs spells them: a dependency that is not here fails.
  thirdParty = [
    "cyclopts"
    "hatchling"
    "httptools"
    "huggingface-hub"
    "jinja2"
    "litestar"
    "llama-cpp-python"
    "llguidance"
    "msgspec"
    "numpy"
    "pluggy"
    "prometheus-client"
    "protobuf"
    "pytest"
    "safetensors"
    "sentencepiece"
    "swagger-ui-bundle"
    "tokenizers"
    "torch"
    "transformers"
    "uvicorn"
    "uvloop"
  ];

  arguments = [
    "build-system"
    "dependencies"
    "meta"
    "optional-dependencies"
    "pname"
    "pyproject"
    "pythonImportsCheck"
    "pythonRelaxDeps"
    "src"
    "version"
  ];

  # Everything a list of packages needs, itself included, each once.
  closure =
    packages: lib.unique (lib.concatMap (one: [ one ] ++ closure (one.dependencies or [ ])) packages);
  built = packages: lib.filter (one: !(one ? isHost)) (closure packages);
  searchPath = packages: lib.concatStringsSep ":" (map (one: "${one}/site") (built packages));

  buildPythonPackage =
    given:
    let
      unknown = lib.filter (name: !lib.elem name arguments) (lib.attrNames given);
      dependencies = given.dependencies or [ ];
    in
    if unknown != [ ] then
      throw "buildPythonPackage ${given.pname}: no argument ${toString unknown}"
    else
      derive {
        name = "${given.pname}-${given.version}";
        attributes = {
          inherit (given) src;
          imports = given.pythonImportsCheck or [ ];
          required = map (one: one.pname) dependencies;
          searchPath = searchPath dependencies;
        };
        extra = {
          inherit (given) pname;
          inherit dependencies;
          optional-dependencies = given.optional-dependencies or { };
          meta = given.meta or { };
        };
        script = ''
          cp -r $src source
          chmod -R u+w source
          ${host.python} -m pip install --quiet --no-index --no-deps --no-build-isolation \
            --ignore-installed --no-warn-script-location --prefix=$out ./source
          ln -s $out/lib/python3*/site-packages $out/site
          ${host.python} ${./requirements_check.py} $out/site ${given.pname} "$searchPath" $required
          for module in $imports; do
            PYTHONPATH=$out/site:$searchPath ${host.python} -c "import $module"
          done
        '';
      };

  base = lib.genAttrs thirdParty (pname: {
    inherit pname;
    isHost = true;
  });
  packages =
    let
      start = base // {
        inherit buildPythonPackage;
        callPackage = callWith (packages // { inherit lib; });
      };
    in
    builtins.foldl' (previous: extension: previous // extension packages previous) start extensions;
in
derive {
  name = "python313";
  script = "mkdir -p $out/bin; ln -s ${host.python} $out/bin/python3";
  extra = {
    pkgs = packages;

    # bin/ of every package, each command seeing the whole environment; its children inherit that.
    withPackages =
      select:
      derive {
        name = "python-environment";
        attributes = {
          members = built (select packages);
          searchPath = searchPath (select packages);
        };
        script = ''
          mkdir -p $out/bin
          wrap() {
            printf '#!/bin/sh\nexport PYTHONPATH=%s\nexec %s "$@"\n' "$searchPath" "$1" > $out/bin/$2
            chmod +x $out/bin/$2
          }
          wrap ${host.python} python
          for member in $members; do
            for program in $member/bin/*; do
              if [ -e "$program" ]; then wrap "$program" "$(basename "$program")"; fi
            done
          done
        '';
      };
  };
}
