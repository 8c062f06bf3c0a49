"""Hashes of files."""

from __future__ import annotations

from sglora_cli.files.hashes import first_copies


def test_each_file_is_led_to_the_first_with_its_bytes(tmp_path):
    content = {"a": b"one", "b": b"two", "c": b"one", "d": b"longer", "e": b"two", "f": b"two"}
    paths = [tmp_path / name for name in content]
    for path in paths:
        path.write_bytes(content[path.name])
    paths.append(tmp_path / "missing")
    obvious = {
        path: next((p for p in paths if p.exists() and path.exists() and p.read_bytes() == path.read_bytes()), path)
        for path in paths
    }
    assert first_copies(paths) == obvious
    assert {p.name: q.name for p, q in obvious.items() if p != q} == {"c": "a", "e": "b", "f": "b"}
