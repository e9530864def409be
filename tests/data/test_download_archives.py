"""Archives that are not to be trusted: `mmlit data coco` refuses them and leaves nothing behind."""

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from data.broken_server import Server, published, zipped
from data.downloads import FILES, PICTURES, content, fetched

from mmlit.data.download.plan import STATE


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def bomb() -> bytes:
    """States 10 bytes, is 10 MB."""
    honest = zipped({member("train2014/a.jpg"): bytes(10_000_000)}, stored=False)
    size = (10_000_000).to_bytes(4, "little")
    assert honest.count(size) >= 2
    return honest.replace(size, (10).to_bytes(4, "little"))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: zipped({member("../evil"): b"x", **PICTURES}), "a place outside the folder"),
        (lambda: zipped({**PICTURES, member("train2014/../../evil"): b"x"}), "a place outside the folder"),
        (lambda: zipped({member("/tmp/evil"): b"x", **PICTURES}), "an absolute name"),
        (lambda: zipped({member("C:/evil"): b"x", **PICTURES}), "an absolute name"),
        (lambda: zipped({member("train2014\\..\\evil"): b"x", **PICTURES}), "a name that is none"),
        (lambda: zipped({member("train2014/l", stat.S_IFLNK | 0o777): b"/etc", **PICTURES}), "which is a link"),
        (lambda: zipped({member("train2014/p", stat.S_IFIFO | 0o777): b"", **PICTURES}), "which is no regular file"),
        (lambda: zipped({member("train2014/a"): b"1", member("train2014/./a"): b"2"}), "a name that is none"),
        (lambda: zipped({"train2014/a": bytes(2_000_000)}, stored=False), "would unpack to 2.0 MB, .* at most 1.0 MB"),
        (lambda: zipped({"elsewhere/a": b"1"}), "does not hold train2014"),
        (bomb, "broken archive: Bad CRC-32"),
        (lambda: FILES["train2014.zip"][:-300], "broken archive"),
        (lambda: FILES["train2014.zip"].replace(PICTURES["train2014/000000000007.jpg"], bytes(20_000)), "Bad CRC-32"),
    ],
)  # fmt: skip
def test_an_archive_that_is_not_to_be_trusted_leaves_nothing_behind(
    server: Server, tmp_path: Path, make: Callable[[], bytes], told: str
):
    root = tmp_path / "a" / "b"
    server.files["train2014.zip"] = made = make()
    archive = published(server.url("train2014.zip"), made, ("train2014",), 1_000_000)
    with pytest.raises(ValueError, match=rf"train2014.zip.*{told}"):
        fetched((archive,), root)
    assert content(root) == {}
    assert [path.name for path in (root / STATE).iterdir()] == ["lock"], "the next call fetches it anew"
    assert sorted(path.name for path in tmp_path.rglob("*") if not path.is_relative_to(root / STATE)) == ["a", "b"]


def test_the_same_file_twice_is_refused(server, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        made = zipped({member("train2014/a"): b"1", member("train2014/a"): b"2"})
    server.files["train2014.zip"] = made
    with pytest.raises(ValueError, match="'train2014/a' twice"):
        fetched((published(server.url("train2014.zip"), made, ("train2014",)),), tmp_path)
