"""What everything else stands on: errors, files, statistics, losses, batches, training runs."""
