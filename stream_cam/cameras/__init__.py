"""Many cameras in one process: one network, one pipeline for each camera, one wall."""
