"""Which audited defense to deploy: requirements, rankings and the words for them."""
