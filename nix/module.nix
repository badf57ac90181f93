# NixOS: services.backplane.enable = true; serves the demo model until a modelId is set.
flake:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.backplane;
  arguments = [
    "--hostname"
    cfg.host
    "--port"
    (toString cfg.port)
  ]
  ++ lib.optionals (cfg.modelId != null) [
    "--model-id"
    cfg.modelId
  ]
  ++ lib.optionals (cfg.backend != null) [
    "--backend"
    cfg.backend
  ]
  ++ cfg.extraFlags;
in
{
  options.services.backplane = {
    enable = lib.mkEnableOption "the Backplane model server";
    package = lib.mkOption {
      type = lib.types.package;
      default = flake.packages.${pkgs.stdenv.hostPlatform.system}.cpu;
      description = "The server of one hardware family.";
    };
    plugins = lib.mkOption {
      type = lib.types.functionTo (lib.types.listOf lib.types.package);
      default = _: [ ];
      description = "Third-party backends, as a function of the Python package set.";
    };
    modelId = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      description = "A Hub id or an absolute path; null serves the demo model.";
    };
    backend = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      description = "Backend to use; null takes the best that supports the model.";
    };
    host = lib.mkOption {
      type = lib.types.str;
      default = "127.0.0.1";
      description = "Address to listen on.";
    };
    port = lib.mkOption {
      type = lib.types.port;
      default = 3000;
      description = "Port to listen on.";
    };
    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether to open the port.";
    };
    extraFlags = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Further flags, see backplane --help.";
    };
    environmentFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      description = "Secrets such as HF_TOKEN, as VARIABLE=value lines.";
    };
  };

  config = lib.mkIf cfg.enable {
    networking.firewall.allowedTCPPorts = lib.optionals cfg.openFirewall [ cfg.port ];
    systemd.services.backplane = {
      description = "Backplane model server";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      environment.HF_HOME = "%C/backplane";
      serviceConfig = {
        ExecStart = "${lib.getExe (cfg.package.withPlugins cfg.plugins)} ${lib.escapeShellArgs arguments}";
        Restart = "on-failure";
        # SIGTERM to the launcher alone; whatever is left after the time is killed, all of it.
        KillMode = "mixed";
        # Above --graceful-termination-timeout (90 s) and what the workers get to end.
        TimeoutStopSec = 120;
        DynamicUser = true;
        CacheDirectory = "backplane";
        RuntimeDirectory = "backplane";
        SupplementaryGroups = [
          "render"
          "video"
        ];
      }
      // lib.optionalAttrs (cfg.environmentFile != null) { EnvironmentFile = cfg.environmentFile; };
    };
  };
}
