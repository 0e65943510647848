"""What must outlive every refactoring: identities of trials and artefacts, and a recorded run."""
