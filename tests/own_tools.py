"""Small data sets of the user's own, as files."""

from PIL import Image

from data_prep.options import Options


def make_images(root, classes=("a", "b"), each=2):
    """One folder a class; image i of class c is (50 c, 10 i, 0) all over."""
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            Image.new("RGB", (9, 7), (50 * c, 10 * i, 0)).save(root / name / f"{i}.png")
    return root


def own_options(dataset, folder):
    """Options with which folder, webdataset or synthetic read a set of their own name."""
    if dataset == "synthetic":
        return Options(out="", name=dataset, counts="3,2")
    make_images(folder / "images")
    if dataset == "folder":
        return Options(out="", name=dataset, source=str(folder / "images"))
    import tarfile

    with tarfile.open(folder / "0.tar", "w") as tar:
        for label, image in enumerate(sorted((folder / "images").rglob("1.png"))):
            tar.add(image, f"{label}.png")
            (folder / "label").write_text(str(label))
            tar.add(folder / "label", f"{label}.cls")
    return Options(out="", name=dataset, source=str(folder / "0.tar"))
