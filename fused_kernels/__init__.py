"""Fused CUDA kernels: sources, runtime, tuner and benchmark."""
