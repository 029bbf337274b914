import pytest

from nlden.jobs.batch import PlanError, plan


@pytest.fixture
def tree(tmp_path):
    for name in ("a.mp4", "sub/b.png", "sub/deep/c.MKV", "notes.txt", ".hidden/d.mp4"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def pairs(items, root):
    return [(str(i.source.relative_to(root)), str(i.target.relative_to(root))) for i in items]


def test_a_file_goes_to_its_target_or_into_a_folder(tree):
    source = tree / "in" / "a.mp4"
    assert pairs(plan([source], tree / "o.mkv"), tree) == [("in/a.mp4", "o.mkv")]
    (tree / "out").mkdir()
    assert pairs(plan([source], tree / "out"), tree) == [("in/a.mp4", "out/a.mp4")]


def test_a_folder_is_mirrored(tree):
    assert pairs(plan([tree / "in"], tree / "out"), tree) == [
        ("in/a.mp4", "out/a.mp4"),
        ("in/sub/b.png", "out/sub/b.png"),
        ("in/sub/deep/c.MKV", "out/sub/deep/c.MKV"),
    ]


def test_a_target_inside_the_source_folder_is_not_read(tree):
    (tree / "in" / "out").mkdir()
    (tree / "in" / "out" / "old.mp4").write_bytes(b"x")
    assert len(plan([tree / "in"], tree / "in" / "out")) == 3


@pytest.mark.parametrize(
    ("sources", "target", "message"),
    [
        (["missing.mp4"], "o.mp4", "no such file"),
        (["in/a.mp4"], "in/a.mp4", "never overwritten"),
        (["in/a.mp4"], "old.mp4", "-y"),
        (["in/a.mp4"], "o.xyz", "extension .xyz"),
        (["in/a.mp4"], "o", "extension"),
        (["in/a.mp4"], "o.png", "a video cannot be written"),
        (["in/sub/b.png"], "o.mp4", "a picture cannot be written"),
        (["in/a.mp4"], "nowhere/o.mp4", "there is no folder"),
        (["in/a.mp4", "in/sub/b.png"], "old.mp4", "need a folder"),
        (["empty"], "out", "no videos or pictures"),
        (["in/a.mp4", "twin/a.mp4"], "out", "two inputs"),
        (["in"], "in", "never overwritten"),
    ],
)
def test_what_does_not_go_together_is_told(tree, sources, target, message):
    (tree / "old.mp4").write_bytes(b"x")
    (tree / "empty").mkdir()
    (tree / "twin").mkdir()
    (tree / "twin" / "a.mp4").write_bytes(b"x")
    with pytest.raises(PlanError, match=message):
        plan([tree / s for s in sources], tree / target)


def test_y_overwrites_but_never_an_input(tree):
    (tree / "old.mp4").write_bytes(b"x")
    source = tree / "in" / "a.mp4"
    assert len(plan([source], tree / "old.mp4", overwrite=True)) == 1
    (tree / "link.mp4").symlink_to(source)
    for target in (source, tree / "link.mp4"):
        with pytest.raises(PlanError, match="never overwritten"):
            plan([source], target, overwrite=True)
