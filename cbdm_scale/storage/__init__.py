"""Local folders and URLs, and JSON from files that anybody may have written."""
