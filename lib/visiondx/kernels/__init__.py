"""Kernels: a PyTorch reference, a fast CPU path, and Triton, behind one public function each."""
