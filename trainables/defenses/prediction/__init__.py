"""Defenses that change the network or what it answers, without a proof."""
