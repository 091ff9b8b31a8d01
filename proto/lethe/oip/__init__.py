"""What others call the Open Inference Protocol, version 2."""
