"""Training a net with the rounding of its int8 file, so that it learns to live with it.

    from tfprune.quantization.training import quantize_model

Importing this package loads no TensorFlow; its modules do.
"""
