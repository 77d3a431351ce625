"""The Gemini form: `requests` and `answers` with their `parts`; Google spells and streams in several ways."""
