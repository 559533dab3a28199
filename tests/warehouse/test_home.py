"""A place that is no warehouse is told in one sentence, on a disk and on a store."""

from pathlib import Path

import pytest

from tests.rows import prompt
from warehouse.home import Home, HomeError, has_warehouse, make_home, require_warehouse
from warehouse.shards import write_shard
from warehouse.tables import PROMPTS


def refused(home: Home) -> str:
    with pytest.raises(HomeError) as refusal:
        require_warehouse(home)
    message = str(refusal.value)
    assert home.url in message and "\n" not in message and "--home" in message
    return message


def test_warehouse_is_one_once_a_table_has_a_shard(home: Home) -> None:
    assert "nothing is there" in refused(home) and not has_warehouse(home)
    make_home(home)
    refused(home)
    write_shard(home, PROMPTS, [prompt("one")])
    require_warehouse(home)
    assert has_warehouse(home)


def test_folder_of_other_things_and_a_file_are_no_warehouse(tmp_path: Path) -> None:
    (tmp_path / "folder" / "photos").mkdir(parents=True)
    assert "no folder of a table" in refused(Home(str(tmp_path / "folder")))
    file = tmp_path / "file"
    file.write_text("text")
    assert "it is a file" in refused(Home(str(file)))
    assert "Not a directory" in refused(Home(str(file / "below")))
    for place in (file, file / "below"):
        with pytest.raises(HomeError, match="no warehouse can be made at"):
            make_home(Home(str(place)))
    assert file.read_text() == "text"


@pytest.mark.parametrize("url", ["nosuch://bucket/home", "abfs://bucket/home"])
def test_place_of_an_unknown_kind_is_told(url: str) -> None:
    with pytest.raises(HomeError, match=r"is no place for a warehouse"):
        require_warehouse(Home(url))


def test_folder_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.listdir", denied)  # root may read everything
    assert "Permission denied" in refused(Home(str(tmp_path)))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(HomeError, match="cannot be written to: permission denied"):
        make_home(Home(str(tmp_path)))
