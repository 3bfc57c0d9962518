"""The expert lab: who goes to which expert, and what happens when you interfere."""
