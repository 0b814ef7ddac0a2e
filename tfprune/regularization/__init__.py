"""The composite regularizer: penalties on weights, and sparse gradients, while a net trains.

f = task + lambda * sum R(W_l) + beta * sum H(S_l), Khan et al., "Neural Network Compression by Joint Sparsity
Promotion and Redundancy Reduction" (arXiv 2210.07451), with R and H as they can be computed: H has no gradient as
equation 7 prints it, equation 9 is not the gradient of R, and updates subtract gradients.
`regularize_model` (`tfprune.regularization.attaching`) is the way in. Importing this package loads no TensorFlow;
its modules do.
"""

from __future__ import annotations

REGULARIZERS: dict[str, str] = {
    "orthogonality": "tfprune.regularization.penalties:Orthogonality",
    "l2": "tfprune.regularization.penalties:SquaredSum",
    "gamma_l1": "tfprune.regularization.penalties:ScaleSum",
    "group_lasso": "tfprune.regularization.penalties:GroupLasso",
}
"""Penalties on weights: name -> `module:class`; strings, because that module imports TensorFlow."""

GRADIENT_READINGS: dict[str, str] = {
    "count": "tfprune.regularization.gradients:Count",
    "threshold": "tfprune.regularization.gradients:Threshold",
    "soft_threshold": "tfprune.regularization.gradients:SoftThreshold",
    "surrogate": "tfprune.regularization.gradients:Surrogate",
}
"""What H(S) may mean, the sparsity of the task's gradients: name -> `module:class`."""
