"""The protocols of OpenAI's and Anthropic's clients as pure functions: bodies of requests in, bodies of answers out."""
