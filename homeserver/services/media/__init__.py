"""The content repository (CS "Content repository")."""
