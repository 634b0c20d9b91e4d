"""The data set that a network learnt from, where it is to be had."""

from cbdm_scale.data.manifest import Manifest, read_manifest
from cbdm_scale.pretrained.network import PretrainedNetwork
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.remote import split_scheme


def find_data(origin: PretrainedNetwork, data_root: str) -> tuple[Manifest | None, str]:
    """What it learnt from: the data set's manifest and root, None where it is not to be had.

    ``data_root`` says where the data set is now; then it must be there, and be the same.
    """
    config = origin.config
    if not config.dataset:
        return None, ""
    root = data_root or config.data.root
    if data_root and not split_scheme(root)[0]:
        root = Storage(root).url
    try:
        manifest = read_manifest(root, config.dataset)
    except (ValueError, OSError) as error:
        if data_root:
            raise ValueError(f"data_root: {error}") from error
        return None, ""
    if origin.fingerprint and manifest.fingerprint != origin.fingerprint:
        if data_root:
            raise ValueError(
                f"data_root ({data_root}): {config.dataset} there has fingerprint "
                f"{manifest.fingerprint}, the run learnt from {origin.fingerprint}. Leave it "
                "out, or make the data set as it was."
            )
        return None, ""
    return manifest, root
