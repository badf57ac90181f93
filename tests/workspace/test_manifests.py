"""Versions in lock-step, dependencies as the architecture allows, the lock free of machines."""

import ast
import re
import sys
import tomllib

import pytest

FIRST_PARTY = re.compile(r"^(backplane-[a-z]+)(\[[a-z,]+\])?(.*)$")


def python_files(folder):
    return sorted((folder / "src").rglob("*.py"))


def top_level_imports(path):
    """(top-level module, line) of every absolute import of the file, lazy ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0], node.lineno


def test_all_members_and_the_changelog_have_one_version(root, members):
    changelog = re.search(r"^## \[([^\]]+)\]", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = {folder.name: data["project"]["version"] for folder, data in members.items()}
    versions["CHANGELOG.md"] = changelog[1]
    assert len(set(versions.values())) == 1, versions


def test_first_party_pins_are_exact(members):
    for folder, data in members.items():
        version = data["project"]["version"]
        for requirement in data["project"].get("dependencies", []):
            match = FIRST_PARTY.match(requirement)
            if match:
                assert match[3] == f"=={version}", f"{folder.name}: {requirement}"


def test_core_depends_on_msgspec_and_pluggy_alone(root, members):
    dependencies = members[root / "core"]["project"]["dependencies"]
    assert {re.split(r"[<>=\[]", name)[0] for name in dependencies} == {"msgspec", "pluggy"}


def test_core_imports_only_what_it_declares(root):
    source = root / "core" / "src" / "backplane_core"
    for path in python_files(root / "core"):
        allowed = {"backplane_core", "msgspec", "pluggy"}
        if path.is_relative_to(source / "testing"):
            allowed |= {"pytest"}
        if path.is_relative_to(source / "guidance"):
            allowed |= {"llguidance"}
        for module, line in top_level_imports(path):
            known = module in allowed or module in sys.stdlib_module_names
            assert known, f"{path.relative_to(root)}:{line} imports {module}"


@pytest.mark.parametrize("field", ["description", "license", "requires-python"])
def test_every_member_says_what_it_is(members, field):
    for folder, data in members.items():
        assert data["project"].get(field), f"{folder.name} lacks {field}"


def test_members_hold_no_tool_configuration(members):
    for folder, data in members.items():
        tools = set(data.get("tool", {})) - {"hatch"}
        assert not tools, f"{folder.name}: {tools} belong into the root pyproject.toml"


def test_every_member_is_typed_and_flat(members):
    for folder, data in members.items():
        name = data["project"]["name"].replace("-", "_")
        assert [path.name for path in (folder / "src").glob("backplane_*")] == [name]
        assert (folder / "src" / name / "py.typed").is_file()


def test_the_lock_names_no_machine_and_no_torch(root):
    text = (root / "uv.lock").read_text()
    lock = tomllib.loads(text)
    for package in lock["package"]:
        source = package["source"]
        assert set(source) <= {"registry", "editable", "virtual"}, package["name"]
        assert not source.get("registry", "https://").startswith(("file:", "/")), package["name"]
    assert "file:" not in text
    assert not {"torch", "transformers", "vllm"} & {package["name"] for package in lock["package"]}
