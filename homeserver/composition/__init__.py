"""What a server is made of, built layer by layer; `homeserver.app` puts the layers together."""
