import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.readers.label_tables import is_table, list_table


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def write_parquet(file, **columns):
    pq.write_table(pa.table(columns), file)
    return file


def list_(path):
    return list_table(path, "--source")


def test_csv_and_parquet_with_the_same_rows_are_the_same(tmp_path):
    (tmp_path / "in/x").mkdir(parents=True)
    paths = ["x/a, b.png", str(tmp_path / "é.png"), "../z", "x/missing.png"]
    for path in paths[:3]:
        (tmp_path / "in" / path).touch()
    text = f'\ufefflabel,id, path\ndog,1,"x/a, b.png"\n\ncat,2,{paths[1]}\ndog,3,../z\n'
    csv = list_(write(tmp_path / "in/list.csv", text + "cat,4,x/missing.png\n"))
    labels = ["dog", "cat", "dog", "cat"]
    parquet = list_(write_parquet(tmp_path / "in/list.parquet", label=labels, path=paths))
    assert csv.class_names == parquet.class_names == ("cat", "dog")
    first, second = csv.listing, parquet.listing
    assert first.labels.tolist() == second.labels.tolist() == [1, 0, 1, 0]
    assert first.names == second.names == tuple(paths)
    expected = (*(str(tmp_path / "in" / path) for path in paths[:3]), None)
    assert first.paths == second.paths == expected


def test_integer_labels_are_what_they_say(tmp_path):
    rows = [f"{i}.png,{label}" for i, label in enumerate([10, 2, *range(10)])]
    csv = list_(write(tmp_path / "list.csv", "\n".join(["path,label", *rows])))
    assert csv.class_names == tuple(map(str, range(11)))
    assert csv.listing.labels.tolist() == [10, 2, *range(10)]
    parquet = write_parquet(tmp_path / "l.parquet", path=["a", "b"], label=[1, 0])
    assert list_(parquet).listing.labels.tolist() == [1, 0]


def test_a_column_of_splits_is_not_read_and_said(tmp_path):
    text = "path,label,Split\na,0,train\nb,1,test\n"
    (note,) = list_(write(tmp_path / "list.csv", text)).notes
    assert "all rows are read, whatever stands in the column Split. Give --eval-source" in note


def test_repeated_rows_are_told(tmp_path):
    text = "path,label\na,0\nb,1\na,0\nb,0\n"
    assert list_(write(tmp_path / "list.csv", text)).notes == (
        "1 rows repeat an earlier row and are images of their own",
        "1 rows give an image another label than an earlier row",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one column named path; its columns are none"),
        ("file,label\na,0\n", "one column named path; its columns are 'file', 'label'"),
        ("path,class\na,0\n", "one column named label; its columns are 'path', 'class'"),
        ("path,label,path\na,0,a\n", "one column named path"),
        ("path,label\n", "has no rows"),
        ("path,label\na,0\nb\n", "row 2 has 1 cells, the header 2"),
        ("path,label\na, b.png,0\n", "row 1 has 3 cells, the header 2. Quote"),
        ("path,label\na,0\nb, \n", "row 2 has no label"),
        ("path,label\n,0\n", "row 1 has no path"),
        ("path,label\na\0,0\n", "row 1 has a byte 0 in its path"),
        ("path,label\na,0\nb,1\nc,n/a\n", "2 labels are numbers and 1 are not.*row 3: 'n/a'"),
        ("path,label\na,1\nb,2\n", "1 of the labels 0..2 have no image, the first is 0"),
        ("path,label\na,0\nb,3\n", "2 of the labels 0..3 have no image, the first is 1"),
        ("path,label\na,0\nb,999999999999\n", "have no image, the first is 1"),
        ("path,label\na,0\nb,-1\n", "label -1 is outside 0..0"),
        ("path,label\na,dog\nb,dog\n", "has 1 class; at least 2"),
        ('path,label\n"a"b,0\n', "line 2 is no CSV"),
    ],
)
def test_csv_that_is_wrong_says_where(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"--source \(.*list.csv\).*{message}"):
        list_(write(tmp_path / "list.csv", text))


def test_csv_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "list.csv").write_bytes("path,label\né,0\n".encode("latin-1"))
    with pytest.raises(ValueError, match="list.csv.* is not UTF-8"):
        list_(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a", "b"], "label": [0.0, 1.0]}, r"row 1 is \('a', 0.0\)"),
        ({"path": [1, 2], "label": [0, 1]}, r"row 1 is \(1, 0\)"),
        ({"path": ["a", "b"], "label": [0, None]}, "row 2 has no label"),
        ({"path": ["a", None], "label": [0, 1]}, "row 2 has no path"),
        ({"image": ["a"], "label": [0]}, "one column named path; its columns are 'image'"),
    ],
)
def test_parquet_that_is_wrong_says_where(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        list_(write_parquet(tmp_path / "list.parquet", **columns))


def test_parquet_that_is_none_is_refused(tmp_path):
    (tmp_path / "list.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(ValueError, match="list.parquet.* is not a Parquet file"):
        list_(tmp_path / "list.parquet")


def test_a_table_is_known_by_its_suffix(tmp_path):
    assert is_table(write(tmp_path / "a.CSV", ""))
    assert not is_table(write(tmp_path / "a.txt", ""))
    (tmp_path / "b.csv").mkdir()
    assert not is_table(tmp_path / "b.csv")
