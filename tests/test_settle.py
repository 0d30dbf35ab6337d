"""Made files are written where they differ, and only there."""

import pytest

from tools.settle import settle


def test_what_differs_is_named_or_written(tmp_path, capsys):
    same, other, new = tmp_path / "same.md", tmp_path / "a" / "other.md", tmp_path / "b" / "new.md"
    other.parent.mkdir()
    same.write_text("é\n", encoding="utf-8")
    other.write_text("old\n", encoding="utf-8")
    stamp = same.stat().st_mtime_ns
    files = {same: "é\n", other: "new ²\n", new: "first\n"}

    with pytest.raises(SystemExit, match=r"^Not up to date: a/other\.md, b/new\.md\. Run `make it`\.$"):
        settle(files, tmp_path, True, "make it")
    assert other.read_text(encoding="utf-8") == "old\n" and not new.exists(), "a check writes nothing"

    settle(files, tmp_path, False, "make it")
    assert capsys.readouterr().out == "Written: a/other.md, b/new.md.\n"
    assert {path: path.read_text(encoding="utf-8") for path in files} == files
    assert same.stat().st_mtime_ns == stamp

    settle(files, tmp_path, True, "make it")
    assert capsys.readouterr().out == "All is up to date.\n"
