"""CelebA on disk, and a face recogniser of one's own on it."""
