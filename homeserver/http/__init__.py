"""HTTP: routing, requests, answers, errors, authentication, rate limits."""
