"""Scripts that write committed sources of the native library; never imported at run time."""
