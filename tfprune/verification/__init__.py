"""Measurements on the exported file: classes, quality, agreement, footprint, latency.

Nothing here imports TensorFlow as long as ai-edge-litert or tflite-runtime is installed.

    from tfprune.verification.runtimes import open_runtime
"""
