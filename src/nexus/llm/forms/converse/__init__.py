"""The Converse form, and what the `families` of models behind it differ in."""
