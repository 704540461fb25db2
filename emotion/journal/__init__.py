"""The video journal: a local web page for one household; nothing leaves the computer."""
