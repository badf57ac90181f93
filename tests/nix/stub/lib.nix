# The part of nixpkgs' lib that our files use. A name that is not here fails the evaluation.
let
  characters =
    text: builtins.genList (place: builtins.substring place 1 text) (builtins.stringLength text);

  self = {
    inherit (builtins)
      attrNames
      attrValues
      concatMap
      concatStringsSep
      elem
      elemAt
      filter
      head
      mapAttrs
      replaceStrings
      ;

    toLower = builtins.replaceStrings (characters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (
      characters "abcdefghijklmnopqrstuvwxyz"
    );
    unique = builtins.foldl' (seen: item: if self.elem item seen then seen else seen ++ [ item ]) [ ];
    splitString =
      separator: text:
      builtins.filter builtins.isString (builtins.split separator text);
    optionals = condition: list: if condition then list else [ ];
    optionalString = condition: text: if condition then text else "";
    optionalAttrs = condition: set: if condition then set else { };
    genAttrs =
      names: value:
      builtins.listToAttrs (
        map (name: {
          inherit name;
          value = value name;
        }) names
      );
    filterAttrs =
      keep: set: builtins.removeAttrs set (self.filter (name: !keep name set.${name}) (self.attrNames set));
    mapAttrsToList = pick: set: map (name: pick name set.${name}) (self.attrNames set);
    mapAttrs' = pick: set: builtins.listToAttrs (self.mapAttrsToList pick set);
    importTOML = path: builtins.fromTOML (builtins.readFile path);
    getExe =
      package:
      "${package}/bin/${package.meta.mainProgram or (throw "${package.name} has no meta.mainProgram")}";
    escapeShellArgs =
      arguments:
      let
        quote = argument: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] (toString argument)}'";
      in
      self.concatStringsSep " " (map quote arguments);

    licenses.asl20 = "Apache-2.0";

    # Options keep what was written, so that a test can read it.
    mkOption = option: option // { _type = "option"; };
    mkEnableOption =
      what:
      self.mkOption {
        type = self.types.bool;
        default = false;
        description = "Whether to enable ${what}.";
      };
    mkIf = condition: value: if condition then value else { };
    types = self.genAttrs [ "bool" "package" "path" "port" "str" ] (name: name) // {
      functionTo = result: { functionTo = result; };
      listOf = item: { listOf = item; };
      nullOr = item: { nullOr = item; };
    };
  };
in
self
