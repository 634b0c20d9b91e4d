"""The code of a registered model; MLflow runs this file when it loads one.

    model = mlflow.pyfunc.load_model("models:/<run name>@best")
    images = model.predict(pandas.DataFrame({"label": [0, 1, 2]}))  # (3, H, W, C) uint8

``cbdm_scale`` itself must be installed where the model is loaded.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd  # type: ignore[import-untyped]


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Column "label", and optionally "seed" (0 if absent), to images."""

    def load_context(self, context: Any) -> None:
        self.folder = str(Path(context.artifacts["ema"]).parent)  # config.json stands beside

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        from cbdm_scale.serve import generate_from_checkpoint

        labels = model_input["label"].to_numpy()  # (N,)
        seeds = np.zeros_like(labels)
        if "seed" in model_input:
            seeds = model_input["seed"].fillna(0).to_numpy().astype(np.int64)
        images: dict[int, Any] = {}
        for seed in np.unique(seeds).tolist():
            rows = np.flatnonzero(seeds == seed)
            batch = generate_from_checkpoint(self.folder, labels[rows].tolist(), seed)
            images.update(zip(rows.tolist(), batch, strict=True))
        return np.stack([images[row] for row in range(len(labels))])  # (N, H, W, C)


mlflow.models.set_model(ServedModel())
