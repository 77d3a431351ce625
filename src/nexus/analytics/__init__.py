"""Floor 3: forecasts, trained tabular models, data sets.

Read in this order: `types`, `errors`, `settings`; the contracts `forecaster`, `predictor` and `detector` with
their plug folders; `reading` -> `values` -> `frames` (a file becomes series); `metrics`, `backtest`,
`forecasting` (the story of a forecast); `encoding`, `training`, `predicting` (the story of a tabular model);
`service`, then `routes` and `jobs`.

Everything from `reading` to `predicting` runs in a compute child: no module here imports pandas, statsforecast,
LightGBM, scikit-learn or pyarrow outside a function.
"""
