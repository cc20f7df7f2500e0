"""The subcommands, one file each: what is asked of the library, and in what order."""
