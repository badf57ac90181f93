# What `make install` needs, and no more: uv.lock stays the truth for development.
{
  mkShell,
  python313,
  uv,
  gnumake,
  git,
  gcc,
}:
mkShell {
  packages = [
    python313
    uv
    gnumake
    git
    gcc
  ];
}
