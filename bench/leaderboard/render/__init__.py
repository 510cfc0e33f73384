"""Tables as text: console, Markdown, JSON, CSV and LaTeX."""
