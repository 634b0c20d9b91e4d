"""What each part may import: read top to bottom, this is the design."""

# What each part may import, besides itself.
MAY_IMPORT = {
    # Floor 1.
    "devices": set(),
    "diffusion": set(),
    "storage": set(),
    "torch_internals": set(),
    # Floor 2.
    "cli": {
        "storage",
    },
    "data": {
        "diffusion",
        "storage",
    },
    "losses": {
        "diffusion",
        "storage",
    },
    "models": {
        "diffusion",
        "storage",
    },
    "sampling": {
        "diffusion",
        "storage",
    },
    "tracking": {
        "storage",
    },
    # Floor 3.
    "cluster": {
        "cli",
        "devices",
        "storage",
    },
    "metrics": {
        "data",
        "devices",
        "models",
        "sampling",
        "storage",
    },
    "training": {
        "data",
        "diffusion",
        "losses",
        "storage",
        "torch_internals",
    },
    # Floor 4.
    "config": {
        "cli",
        "cluster",
        "data",
        "diffusion",
        "losses",
        "metrics",
        "models",
        "sampling",
        "storage",
        "tracking",
        "training",
    },
    "generation": {
        "cluster",
        "data",
        "data_prep",
        "diffusion",
        "models",
        "sampling",
        "storage",
        "torch_internals",
    },
    "recognition": {
        "cluster",
        "data",
        "diffusion",
        "metrics",
        "models",
        "storage",
        "tracking",
        "training",
    },
    # Floor 5.
    "classify": {
        "cli",
        "cluster",
        "config",
        "data",
        "data_prep",
        "recognition",
        "storage",
        "tracking",
        "training",
    },
    "pretrained": {
        "cluster",
        "config",
        "data",
        "diffusion",
        "models",
        "sampling",
        "storage",
        "tracking",
        "training",
    },
    # Floor 6.
    "evaluation": {
        "cli",
        "cluster",
        "config",
        "data",
        "devices",
        "diffusion",
        "generation",
        "metrics",
        "pretrained",
        "sampling",
        "storage",
        "tracking",
        "training",
    },
    "sample": {
        "cli",
        "config",
        "data",
        "generation",
        "pretrained",
        "storage",
    },
    # Floor 7.
    "evaluate": {
        "cli",
        "config",
        "evaluation",
        "pretrained",
        "storage",
    },
    "export": {
        "cli",
        "data",
        "evaluation",
        "pretrained",
        "storage",
        "training",
    },
    "runs": {
        "cli",
        "cluster",
        "config",
        "data",
        "data_prep",
        "devices",
        "diffusion",
        "evaluation",
        "losses",
        "metrics",
        "models",
        "pretrained",
        "sampling",
        "storage",
        "torch_internals",
        "tracking",
        "training",
    },
    # Floor 8.
    "preflight": {
        "cli",
        "cluster",
        "config",
        "data",
        "runs",
        "storage",
        "tracking",
    },
    "train": {
        "cli",
        "config",
        "data",
        "pretrained",
        "runs",
        "storage",
        "tracking",
    },
}

PREP_MAY_IMPORT = {
    "cli",
    "cluster",
    "data",
    "diffusion",
    "metrics",
    "models",
    "storage",
}

# Files, or folders with a slash, that alone may import a library.
OWNER = {
    "ray": {
        "cbdm_scale/cluster/",
        "tune/ray_trials.py",
        "tune/pbt.py",
    },
    "optuna": {"tune/sampler.py"},
    "altair": {
        "cbdm_scale/evaluation/report/",
        "tune/figures.py",
        "tune/comparison/figures.py",
    },
    "vl_convert": {"cbdm_scale/evaluation/report/"},
    "jinja2": {"cbdm_scale/evaluation/report/"},
    "tqdm": {"cbdm_scale/cluster/progress.py"},
    "mlflow": {"cbdm_scale/tracking/", "cbdm_scale/pretrained/mlflow_model.py"},
    "webdataset": {"data_prep/tars.py", "data_prep/writing/tars.py"},
    "triton": {
        "cbdm_scale/diffusion/rng_kernel.py",
        "cbdm_scale/models/norm_kernel.py",
    },
    "braceexpand": {"data_prep/readers/foreign_tars.py"},
    "torch_fidelity": {"cbdm_scale/metrics/inception.py"},
    "torch.distributed": {"cbdm_scale/training/distributed.py", "cbdm_scale/cluster/"},
}
TUNE_MAY_IMPORT = {
    "cli",
    "cluster",
    "config",
    "data",
    "devices",
    "diffusion",
    "evaluation",
    "generation",
    "metrics",
    "models",
    "pretrained",
    "runs",
    "sampling",
    "storage",
    "tracking",
    "training",
}

PREP_MAY_IMPORT = {
    "cli",
    "cluster",
    "data",
    "diffusion",
    "metrics",
    "models",
    "storage",
}

# Files, or folders with a slash, that alone may import a library.
OWNER = {
    "ray": {
        "cbdm_scale/cluster/",
        "tune/ray_trials.py",
        "tune/pbt.py",
    },
    "optuna": {"tune/sampler.py"},
    "altair": {
        "cbdm_scale/evaluation/report/",
        "tune/figures.py",
        "tune/comparison/figures.py",
    },
    "vl_convert": {"cbdm_scale/evaluation/report/"},
    "jinja2": {"cbdm_scale/evaluation/report/"},
    "tqdm": {"cbdm_scale/cluster/progress.py"},
    "mlflow": {"cbdm_scale/tracking/", "cbdm_scale/pretrained/mlflow_model.py"},
    "webdataset": {"data_prep/tars.py", "data_prep/writing/tars.py"},
    "triton": {
        "cbdm_scale/diffusion/rng_kernel.py",
        "cbdm_scale/models/norm_kernel.py",
    },
    "braceexpand": {"data_prep/readers/foreign_tars.py"},
    "torch_fidelity": {"cbdm_scale/metrics/inception.py"},
    "torch.distributed": {"cbdm_scale/training/distributed.py", "cbdm_scale/cluster/"},
}
