"""The code of a registered model; MLflow runs this file when it loads one.

    model = mlflow.pyfunc.load_model("models:/<run name>@best")
    rows = pandas.DataFrame({"label": [0, 1, 2], "omega": [0.0, 0.8, 1.6]})
    images = model.predict(rows)  # (3, H, W, C) uint8

``cbdm_scale`` itself must be installed where the model is loaded.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd  # type: ignore[import-untyped]


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Columns "label", and optionally "seed" (0 if absent) and "omega", to images.

    omega is the strength of guidance, 0 none; where it is absent, the run's own.
    """

    def load_context(self, context: Any) -> None:
        """Where the artifacts are, as MLflow says."""
        self.folder = str(Path(context.artifacts["ema"]).parent)  # config.json stands beside

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        """Images (N, H, W, C) uint8 of the N rows."""
        from cbdm_scale.pretrained.serve import generate_from_checkpoint

        labels = model_input["label"].to_numpy()  # (N,)
        seeds, omegas = np.zeros(len(labels), np.int64), np.full(len(labels), np.nan)
        if "seed" in model_input:
            seeds = model_input["seed"].fillna(0).to_numpy().astype(np.int64)
        if "omega" in model_input:
            omegas = model_input["omega"].to_numpy().astype(np.float64)
        wanted = [
            (seed, None if np.isnan(omega) else omega)
            for seed, omega in zip(seeds.tolist(), omegas.tolist(), strict=True)
        ]
        images: dict[int, Any] = {}
        for seed, omega in dict.fromkeys(wanted):
            rows = [row for row, one in enumerate(wanted) if one == (seed, omega)]
            batch = generate_from_checkpoint(self.folder, labels[rows].tolist(), seed, omega)
            images.update(zip(rows, batch, strict=True))
        return np.stack([images[row] for row in range(len(labels))])  # (N, H, W, C)


mlflow.models.set_model(ServedModel())
