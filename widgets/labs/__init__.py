"""Labs: one UI-free controller and two thin views each."""
