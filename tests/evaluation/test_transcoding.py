import av

from nlden.evaluation.transcoding import ENCODINGS, compare


def test_both_ways_give_the_same_file(tmp_path):
    told = []
    rows = compare(tmp_path, frames=4, size=(72, 96), repetitions=1, report=told.append)
    assert [(row.encoder, row.bits) for row in rows] == [(e, b) for b in (8, 10) for e in ENCODINGS]
    assert told[0] == "libx264 medium, 8 bits"
    assert all(row.plain > 0 and row.nlden > 0 for row in rows)
    pictures = []
    for name in ("plain.mkv", "nlden.mkv"):  # of the last row: ffv1, 10 bits
        with av.open(str(tmp_path / name)) as container:
            frames = list(container.decode(video=0))
        assert [frame.format.name for frame in frames] == ["yuv420p10le"] * 4
        pictures.append([bytes(plane) for frame in frames for plane in frame.planes])
    assert pictures[0] == pictures[1]
