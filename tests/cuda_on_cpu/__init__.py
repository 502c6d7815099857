"""The CUDA kernels, compiled by g++ and run on the CPU: the shim, its build, its own tests."""
