"""Where what was made is kept: artefacts by their identity, in folders on a disk or in a store."""
